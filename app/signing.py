"""The keys that sign the audit log's head, and which of them a connection signs with."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection
from pydantic import SecretStr

INSTALLATION = "installation"
"""The id of the key that is made of what stands in the database: good against mistakes, not against its owner."""


@dataclass(frozen=True, repr=False)
class Key:
    """One of them; ``id`` tells it from others and gives nothing away."""

    id: str
    secret: bytes

    @classmethod
    def of(cls, secret: SecretStr) -> "Key":
        """From AUTOPILOT_AUDIT_KEY."""
        text = secret.get_secret_value().encode()
        return cls(sha256(b"id of an audit key:" + text).hexdigest()[:8], text)

    @classmethod
    def of_installation(cls, masking_key: bytes) -> "Key":
        """Where AUTOPILOT_AUDIT_KEY is not set."""
        return cls(INSTALLATION, hmac.digest(masking_key, b"the head of the audit log", "sha256"))

    def sign(self, seq: int, row_hash: str) -> str:
        """HMAC-SHA256 of a head."""
        return hmac.new(self.secret, f"{seq}:{row_hash}".encode(), "sha256").hexdigest()

    def signed(self, seq: int, row_hash: str, signature: str) -> bool:
        """Whether that is this key's signature."""
        return hmac.compare_digest(self.sign(seq, row_hash).encode(), signature.encode())


_KEYS: WeakKeyDictionary[AsyncConnection[Any], tuple[Key, ...]] = WeakKeyDictionary()


def sign_with(connection: AsyncConnection[Any], secrets: Sequence[SecretStr]) -> None:
    """What is appended over this connection is signed with the first, and may follow what any of them signed."""
    _KEYS[connection] = tuple(map(Key.of, secrets))


def keys_of(connection: AsyncConnection[Any]) -> tuple[Key, ...]:
    """Those; none: the installation's own key signs."""
    return _KEYS.get(connection, ())
