"""Where a source is, as its settings tell it."""

from urllib.parse import urlsplit


def base_url(url: str) -> str:
    """The URL without a slash at its end; links are made of it, and people read them. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must begin with https:// or http://, and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password: links show it; there are settings for them")
    return url.rstrip("/")
