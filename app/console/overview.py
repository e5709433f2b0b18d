"""The frame of the page and the list of incidents, as HTML. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from datetime import datetime

from app.console.markup import address, card, chip, moment, text
from app.console.texts import TEXTS, counted
from app.db import Row
from app.report_texts import word
from app.security import Caller
from graph.llms.sentences import restated
from graph.state import Language

NAMES: dict[Language, str] = {"en": "English", "ko": "한국어"}


def header(caller: Caller | None, lang: Language, incident_id: str | None) -> str:
    """Name of the product, where to go, who is signed in, which language."""
    t = TEXTS[lang]
    languages = " · ".join(
        f"<b>{name}</b>" if known == lang else f'<a href="{address(incident=incident_id, lang=known)}">{name}</a>'
        for known, name in NAMES.items()
    )
    who = f"{t['signed_in']} <b>{text(caller.name)}</b> {chip('calm', caller.role)}" if caller else ""
    oversight = f'<a href="{address(view="oversight", lang=lang)}">{t["oversight"]}</a>'
    seen_by_admin = oversight if caller and caller.may("admin") else ""
    return (
        f'<header class="top"><a class="brand" href="{address(lang=lang)}">AIOps Auto Pilot</a>'
        f'<nav><a href="{address(lang=lang)}">{t["incidents"]}</a>{seen_by_admin}'
        f'<a href="/docs" target="_blank">{t["api"]}</a></nav>'
        f'<span class="who">{who}</span><span class="languages">{languages}</span></header>'
    )


def incident_list(
    rows: Sequence[Row], lang: Language, *, older: str | None, paged: bool, alerts: Mapping[str, int]
) -> str:
    """One page of incidents, newest first. ``older`` is the cursor of the next page; ``alerts``: how many by id."""
    t = TEXTS[lang]
    if not rows:
        return card(t["incidents"], f'<p class="muted">{t["no_incidents"]}</p>')
    heads = "".join(f"<th>{t[k]}</th>" for k in ("status", "incident", "service", "severity", "occurred", "opened_by"))
    body = "".join(_incident_row(row, lang, alerts.get(row["id"], 0)) for row in rows)
    pages = [f'<a class="page" href="{address(lang=lang)}">« {t["newest"]}</a>'] if paged else []
    pages += [f'<a class="page" href="{address(before=older, lang=lang)}">{t["older"]} »</a>'] if older else []
    table = f'<table class="incidents"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return card(t["incidents"], table + f'<div class="pages">{"".join(pages)}</div>')


def _incident_row(row: Row, lang: Language, alerts: int) -> str:
    t = TEXTS[lang]
    here = address(incident=row["id"], lang=lang)
    why = restated(row["status_reason"], lang)
    reason = f'<small class="muted">{text(why)}</small>' if why else ""
    waits = row["status"] == "received" and row["admitted_at"] is None
    status = chip("waiting", t["waiting"]) if waits else chip(row["status"], word(t, "status", row["status"]))
    severity = chip(row["severity"], word(t, "severity", row["severity"]))
    known = " · ".join(filter(None, (text(row["id"]), counted(t, alerts, row["flaps"]))))
    return (
        f"<tr><td>{status}</td>"
        f'<td class="what"><a href="{here}">{text(row["title"])}</a><small class="muted">{known}</small>'
        f"{reason}</td><td>{text(row['service'])}</td><td>{severity}</td>"
        f"<td>{moment(row['occurred_at'])}</td><td>{text(row['opened_by'])}</td></tr>"
    )


def cursor(row: Row) -> str:
    """What the link to the next page carries: the last row seen."""
    return urlsafe_b64encode(f"{row['opened_at'].isoformat()} {row['id']}".encode()).decode()


def position(asked: str | None) -> tuple[datetime, str] | None:
    """The row a cursor stands for; None for one we did not make: that is the first page."""
    try:
        opened_at, _, incident_id = urlsafe_b64decode((asked or "").encode()).decode().partition(" ")
        at = datetime.fromisoformat(opened_at)
    except (NotBase64, ValueError):
        return None
    return (at, incident_id) if at.tzinfo and "\x00" not in incident_id else None
