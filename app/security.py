"""Who may do what: API keys, console sessions, one-time sign-in links, roles."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, get_args

from app.db import Connection
from app.store import credentials

Role = Literal["viewer", "responder", "admin"]
Kind = Literal["key", "session", "sign_in"]
RANK: dict[Role, int] = {role: rank for rank, role in enumerate(get_args(Role))}
LIFETIME: dict[Kind, timedelta | None] = {
    "key": None,
    "session": timedelta(hours=12),
    "sign_in": timedelta(minutes=30),
}


@dataclass(frozen=True)
class Caller:
    """An authenticated person or program."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this caller's role includes ``role``: viewer < responder < admin."""
        return RANK[self.role] >= RANK[role]


async def issue(connection: Connection, kind: Kind, name: str, role: Role) -> str:
    """A new secret, shown this once: ``ap_<id>_<secret>``. 256 random bits, so a plain hash is enough."""
    credential_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    lifetime = LIFETIME[kind]
    expires_at = datetime.now(UTC) + lifetime if lifetime else None
    await credentials.insert(connection, credential_id, kind, name, role, _hash(secret), expires_at)
    return f"ap_{credential_id}_{secret}"


async def authenticate(connection: Connection, token: str, kind: Kind) -> Caller | None:
    """The caller behind a token; a sign-in token is used up by this."""
    prefix, _, rest = token.partition("_")
    credential_id, _, secret = rest.partition("_")
    if prefix != "ap" or not secret or "\x00" in credential_id:  # Postgres holds no NUL
        return None
    row = await credentials.find(connection, credential_id, kind)
    if row is None or not hmac.compare_digest(_hash(secret), bytes(row["secret_hash"])):
        return None
    if kind == "sign_in" and not await credentials.revoke(connection, credential_id):
        return None
    return Caller(name=row["name"], role=row["role"])


async def ensure_admin_key(connection: Connection) -> str | None:
    """On the very first start: an admin key, to be printed once. None where there is any key."""
    await connection.execute("lock table credential in share row exclusive mode")
    if await credentials.keys(connection):
        return None
    return await issue(connection, "key", "first admin", "admin")


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
