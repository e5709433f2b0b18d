"""API keys, console sessions and sign-in links. Functions never commit."""

from datetime import datetime

from app.db import Connection, Row


async def insert(
    connection: Connection,
    credential_id: str,
    kind: str,
    name: str,
    role: str,
    secret_hash: bytes,
    expires_at: datetime | None = None,
) -> None:
    """A new credential; only the hash of its secret is stored."""
    await connection.execute(
        "insert into credential (id, kind, name, role, secret_hash, expires_at) values (%s, %s, %s, %s, %s, %s)",
        (credential_id, kind, name, role, secret_hash, expires_at),
    )


async def find(connection: Connection, credential_id: str, kind: str) -> Row | None:
    """A credential that is neither revoked nor expired."""
    return await (
        await connection.execute(
            """select id, kind, name, role, secret_hash from credential
               where id = %s and kind = %s and revoked_at is null
                 and (expires_at is null or expires_at > clock_timestamp())""",
            (credential_id, kind),
        )
    ).fetchone()


async def revoke(connection: Connection, credential_id: str) -> bool:
    """Make it useless; False if it was already, or never existed."""
    row = await (
        await connection.execute(
            "update credential set revoked_at = clock_timestamp() where id = %s and revoked_at is null returning id",
            (credential_id,),
        )
    ).fetchone()
    return row is not None


async def keys(connection: Connection) -> list[Row]:
    """All API keys, without secrets."""
    return await (
        await connection.execute(
            "select id, name, role, created_at, revoked_at from credential where kind = 'key' order by created_at"
        )
    ).fetchall()
