"""What belongs to this installation as a whole."""

from app.db import Connection


async def masking_key(connection: Connection) -> bytes:
    """The key of the placeholders that stand for secrets and personal data; made with the database."""
    row = await (await connection.execute("select masking_key from installation")).fetchone()
    assert row is not None  # the migration put it there
    return bytes(row["masking_key"])
