"""Who may do what: API keys, console sessions, one-time sign-in links, roles."""

import getpass
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, get_args

from app.db import Connection
from app.store import audit, credentials
from graph.state import Role

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


def local_caller() -> Caller:
    """Whoever runs the command line on a machine that reaches the database: that person could do anything to it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user has no name
        name = f"uid {os.getuid()}"
    return Caller(f"{name} (command line)", "admin")


async def issue(connection: Connection, kind: Kind, name: str, role: Role, by: str = audit.OURSELVES) -> str:
    """A new secret, shown this once: ``ap_<id>_<secret>``. 256 random bits, so a plain hash is enough.

    ``by``: who made it. It is audited, so this is the last statement of its transaction.
    """
    credential_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    lifetime = LIFETIME[kind]
    expires_at = datetime.now(UTC) + lifetime if lifetime else None
    await credentials.insert(connection, credential_id, kind, name, role, _hash(secret), expires_at)
    told = {"id": credential_id, "state": "created", "kind": kind, "name": name, "role": role}
    await audit.append(connection, "key", by, datetime.now(UTC), told)
    return f"ap_{credential_id}_{secret}"


async def revoke(connection: Connection, credential_id: str, by: str) -> bool:
    """Make it useless; False if it was already, or never existed. Audited: the last statement of its transaction."""
    if not await credentials.revoke(connection, credential_id):
        return False
    await audit.append(connection, "key", by, datetime.now(UTC), {"id": credential_id, "state": "revoked"})
    return True


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
