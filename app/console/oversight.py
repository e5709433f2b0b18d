"""How people decide, and the end of the audit log, as HTML; for admins. Pure."""

import json
from collections.abc import Sequence

from app.console.markup import address, card, chip, meter, moment, table, text
from app.db import Row
from app.decisions import Figures
from app.report_texts import Texts
from graph.state import Language

SHARES = ("under_10s", "without_evidence", "approved", "at_night")
LONGEST = 160  # characters of an entry
DIGESTS = ("sha256", "digest")
TOLD = ("at", "by")


def fatigue(figures: Sequence[Figures], days: int, t: Texts) -> str:
    """By team, then by person."""
    columns = ("decisions_made", "per_week", "median_s", "under_10s", "without_evidence", "approved_share", "at_night")
    heads = ("", *(t[name] for name in (*columns, "refusals")))
    shown = table(heads, (_figures(f, t) for f in figures), "fatigue")
    told = f'<p class="muted">{t["fatigue_what"].format(days)}</p>'
    return card(t["fatigue"], told + (shown or f"<p>{t['no_decisions']}</p>"))


def _figures(of: Figures, t: Texts) -> tuple[str, ...]:
    who = f"<b>{text(of.name or t['no_team'])}</b> {chip('calm', t[of.of])}"
    took = "-" if of.median_s is None else f"{of.median_s:,.0f} s"
    shares = (_share(getattr(of, name)) for name in SHARES)
    return (who, f"{of.decisions:,}", f"{of.per_week:.1f}", took, *shares, f"{of.refusals:,}")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}% {meter(share)}"


def audit_log(rows: Sequence[Row], lang: Language, t: Texts) -> str:
    """The last rows, newest first."""
    told = f'<p class="muted">{t["audit_what"]}</p>'
    heads = ("#", t["when"], t["kind"], t["actor"], t["incident"], t["entry"])
    return card(t["audit"], told + table(heads, (_entry(row, lang) for row in reversed(rows)), "audit"))


def _entry(row: Row, lang: Language) -> tuple[str, ...]:
    known = row["incident_id"]
    link = f'<a href="{address(incident=known, lang=lang)}">{text(known)}</a>' if known else "-"
    at = moment(row["at"]) if row["at"] else "-"
    return (str(row["seq"]), at, chip("calm", row["kind"]), text(row["actor"]), link, f"<code>{_body(row)}</code>")


def _body(row: Row) -> str:
    """What people read of it: no digests, and nothing that other columns say."""
    known = {k: v for k, v in json.loads(row["body"]).items() if k not in TOLD and not k.endswith(DIGESTS)}
    said = ", ".join(f"{k}={v}" for k, v in known.items() if isinstance(v, str | int | float) and v != "")
    return text(said if len(said) <= LONGEST else said[: LONGEST - 1] + "…")
