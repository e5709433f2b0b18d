"""Since when to look, by what people's hints say."""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.hinted_times import since

ALERT = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)  # a Friday
SEOUL = ZoneInfo("Asia/Seoul")


def told(
    *hints: str, alert: datetime = ALERT, asked: datetime | None = None, zone: tzinfo = UTC, looked: int = 10
) -> str:
    """Day and time, UTC; empty: none."""
    found = since(
        hints,
        alert=alert,
        asked=asked or alert + timedelta(minutes=15),
        looked=alert - timedelta(minutes=looked),
        zone=zone,
    )
    return f"{found.at:%d %H:%M}" if found else ""


@pytest.mark.parametrize(
    ("hint", "at"),
    [
        ("it began at 08:40", "20 08:40"),
        ("since 08:40 UTC", "20 08:40"),
        ("look from 08:30 to 12:00", "20 08:30"),
        ("between 08:30 and 12:00", "20 08:30"),
        ("08:30~12:00", "20 08:30"),
        ("until 08:40 it was fine", "20 08:40"),
        ("8am", "20 08:00"),
        ("since 22:00", "19 22:00"),
        ("since yesterday 22:00", "19 22:00"),
        ("08:40 yesterday, I think", "19 08:40"),
        ("the day before yesterday at 10:00", "18 10:00"),
        ("since yesterday", "19 00:00"),
        ("since Wednesday", "18 00:00"),
        ("2026-11-19 23:10", "19 23:10"),
        ("Nov 19th at 21:00", "19 21:00"),
        ("17:40 KST", "20 08:40"),
        ("14:10+05:30", "20 08:40"),
        ("30 minutes ago", "20 08:30"),
        ("half an hour before the alert", "20 08:30"),
        ("look back 3 hours", "20 06:00"),
        ("over the last two hours", "20 07:00"),
        ("30 minutes earlier", "20 08:20"),
        ("어제 22시부터", "19 22:00"),
        ("어제 22시부터 오늘 2시까지", "19 22:00"),
        ("8시 40분쯤 시작", "20 08:40"),
        ("오전 8:40", "20 08:40"),
        ("11월 19일 밤 10시", "19 22:00"),
        ("8시 30분까지는 정상", "20 08:30"),
        ("1시간 반 전부터 보세요", "20 07:30"),
        ("2시간 30분 전", "20 06:30"),
        ("지난 3시간", "20 06:00"),
        ("30분 더 앞에서", "20 08:20"),
        # none
        ('look for "failed at 07:10"', ""),
        ("08:40 EST", ""),  # whose it is cannot be told
        ("release 2.14.0 of payment, 30 minutes", ""),
        ("", ""),
    ],
)
def test_times_in_hints(hint: str, at: str) -> None:
    assert told(hint) == at


def test_a_time_without_a_day_is_the_one_nearest_to_the_alert_that_is_not_to_come() -> None:
    noon = ALERT.replace(hour=12)
    assert told("23:30", alert=noon) == "19 23:30"
    assert told("12:20", alert=noon, asked=noon + timedelta(hours=1)) == "20 12:20"
    assert told("8시 40분쯤", alert=ALERT.replace(hour=21)) == "20 20:40"
    assert told("08:40", alert=ALERT.replace(hour=21)) == "20 08:40"


def test_a_time_without_a_zone_is_of_utc_or_of_the_installations_zone() -> None:
    assert told("08:40", zone=SEOUL) == "20 08:40"  # copied from a report
    assert told("17:40", zone=SEOUL) == "20 08:40"  # read off the wall
    assert told("17:40", zone=UTC) == "19 17:40"


def test_the_last_hint_that_names_a_time_counts() -> None:
    assert told("since 08:40", "since 08:10", "not redis") == "20 08:10"
    assert told("30 minutes earlier", looked=60) == "20 07:30"


@given(st.text(alphabet=st.sampled_from("0123456789:시분일월전후까지어제 since-~to.ago+Zh"), max_size=60))
def test_whatever_is_written_is_over_when_it_is_read(hint: str) -> None:
    found = since([hint], alert=ALERT, asked=ALERT, looked=ALERT, zone=SEOUL)
    assert found is None or (found.at <= ALERT and found.at.utcoffset() == timedelta())
