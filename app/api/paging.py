"""Cursors of lists: where the last page ended, as text that only this service reads."""

import base64
import binascii
from datetime import UTC, datetime

from fastapi import HTTPException


def cursor(at: datetime, row_id: object) -> str:
    """Of the last row of a page."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {row_id}".encode()).decode()


def read_cursor(text: str) -> tuple[datetime, str]:
    """The time and id of that row. Raises HTTPException 422."""
    try:
        moment, _, row_id = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        at = datetime.fromisoformat(moment).astimezone(UTC)
    except (binascii.Error, ValueError, OverflowError):
        raise HTTPException(422, "cursor is not one that this list gave out.") from None
    if "\x00" in row_id:
        raise HTTPException(422, "cursor is not one that this list gave out.")
    return at, row_id
