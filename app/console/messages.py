"""Who was told of an incident, as HTML. Pure."""

from collections.abc import Mapping, Sequence

from app.console.markup import bullets, card, chip, folded, moment, text
from app.db import Row
from app.report_texts import Texts

TEXTS: Mapping[str, Texts] = {
    "en": {
        "messages": "Who was told",
        "held": "held for a while",
        "waiting": "waits",
        "sending": "under way",
        "sent": "sent",
        "failed": "failed",
        "next": "next attempt",
    },
    "ko": {
        "messages": "알림 내역",
        "held": "잠시 보류",
        "waiting": "대기 중",
        "sending": "전송 중",
        "sent": "전송됨",
        "failed": "실패",
        "next": "다음 시도",
    },
}
WORDS = {"sent": "done", "failed": "failed", "sending": "running", "waiting": "warning", "held": "calm"}


def messages(rows: Sequence[Row], t: Texts) -> str:
    """Each target with why it hears, and its messages, newest first; ``rows``: of ``app.api.messages.shown``."""
    said = TEXTS[t["language"]]
    targets: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        targets.setdefault((row["notifier"], row["target"]), []).append(row)
    return card(said["messages"], "".join(_target(told, said) for told in targets.values()))


def _target(rows: Sequence[Row], said: Texts) -> str:
    first, last = rows[0], rows[-1]
    worst = next((r for r in reversed(rows) if r["status"] == "failed"), last)
    head = f"<b>{text(first['notifier'])}</b> {text(first['target'])} {_chip(worst, said)}"
    why = f'<p class="muted">{text(first["why"])}</p>'
    return folded(head, why + bullets(_line(row, said) for row in reversed(rows)), is_open=worst["status"] == "failed")


def _chip(row: Row, said: Texts) -> str:
    return chip(WORDS[row["status"]], said[row["status"]])


def _line(row: Row, said: Texts) -> str:
    at = row["sent_at"] or row["failed_at"] or row["written_at"]
    due = f" · {said['next']} {moment(row['due_at'])}" if row["due_at"] else ""
    detail = f'<br><small class="muted">{text(row["detail"])}{due}</small>' if row["detail"] or due else ""
    return f"{moment(at)} {_chip(row, said)} {text(row['message'][:200])}{detail}"
