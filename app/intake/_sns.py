"""SNS over HTTP: the envelope of a message, and the proof that Amazon signed it.

A topic's name is no secret and the endpoint is public, so the signature is all there is. Amazon names the certificate
inside the message itself: its URL is followed only where it is exactly what Amazon uses in the topic's own region.
"""

import asyncio
import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Literal, TypeVar

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from app.intake.base import IntakeUnavailable, Unauthentic, UnreadablePayload, json_object

FETCH_S = 5.0
LARGEST_BYTES = 64 * 1024
KEPT_S = 3600.0
KEPT = 64  # certificates; Amazon has one or two per region
MISSED_S = 60.0
MISSED = 1024  # URLs at which Amazon has no certificate
NO_SUCH = (403, 404)
TOPIC = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):sns:(?P<region>[a-z0-9-]{3,}):\d{12}:[A-Za-z0-9_.-]{1,261}"
)
CERTIFICATE_NAME = re.compile(r"SimpleNotificationService-[0-9a-f]{32}\.pem")
ANY_CERTIFICATE_NAME = re.compile(r"[\w-]+\.pem", re.ASCII)
DIGESTS: Mapping[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303  by setting only
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
SIGNED: Mapping[str, tuple[str, ...]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


class Envelope(BaseModel):
    """What SNS wraps around every message."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_pascal)

    type: Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
    message_id: str
    topic_arn: str
    message: str
    timestamp: str
    signature_version: str
    signature: str
    signing_cert_url: str = Field(alias="SigningCertURL")
    subject: str | None = None
    token: str | None = None
    subscribe_url: str | None = Field(default=None, alias="SubscribeURL", description="Signed, and never opened")

    def signed_text(self) -> bytes:
        """The bytes that Amazon signs: each key that is there, and its value, on lines of their own."""
        values = self.model_dump(by_alias=True)
        return "".join(f"{k}\n{values[k]}\n" for k in SIGNED[self.type] if values[k] is not None).encode()


def envelope(body: bytes) -> Envelope:
    """Raises UnreadablePayload."""
    try:
        return Envelope.model_validate(json_object(body))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnreadablePayload(f"this is no SNS message: {where} is missing or wrong") from None


class Certificates:
    """Amazon's signing certificates by URL, kept for an hour; that there is none is kept for a minute."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(transport=transport, timeout=FETCH_S, follow_redirects=False, trust_env=False)
        self._kept: dict[str, tuple[float, x509.Certificate]] = {}
        self._missed: dict[str, float] = {}  # apart, so that a flood of forgeries pushes no certificate out
        self._fetching: dict[str, asyncio.Task[x509.Certificate]] = {}

    async def get(self, url: str) -> x509.Certificate:
        """Raises Unauthentic if Amazon has no such certificate, and IntakeUnavailable for whatever else comes that is
        none: nobody can tell then who signed.
        """
        if (kept := self._kept.get(url)) and monotonic() - kept[0] < KEPT_S:
            return kept[1]
        if (missed := self._missed.get(url)) and monotonic() - missed < MISSED_S:
            raise _no_certificate(url)
        if (fetching := self._fetching.get(url)) is None:
            fetching = self._fetching[url] = asyncio.create_task(self._read(url))
            fetching.add_done_callback(partial(self._fetched, url))
        return await asyncio.shield(fetching)  # others may wait for it when this request is given up

    def _fetched(self, url: str, fetching: "asyncio.Task[x509.Certificate]") -> None:
        del self._fetching[url]
        if not fetching.cancelled():
            fetching.exception()  # taken note of, even if all who waited have left

    async def _read(self, url: str) -> x509.Certificate:
        try:
            certificate = x509.load_pem_x509_certificate(await self._fetch(url))
        except Unauthentic:
            _keep(self._missed, url, monotonic(), MISSED)
            raise
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            raise IntakeUnavailable(f"{url} cannot be read: {error or type(error).__name__}") from None
        _keep(self._kept, url, (monotonic(), certificate), KEPT)
        return certificate

    async def _fetch(self, url: str) -> bytes:
        """Raises Unauthentic, httpx.HTTPError, TimeoutError, ValueError."""
        content = bytearray()
        identity = {"Accept-Encoding": "identity"}
        async with asyncio.timeout(FETCH_S), self._client.stream("GET", url, headers=identity) as response:
            if response.status_code in NO_SUCH:
                raise _no_certificate(url)
            if response.status_code != 200:
                raise ValueError(f"it was answered with {response.status_code}")
            if "content-encoding" in response.headers:
                raise ValueError("it is compressed, and may unpack to anything")
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > LARGEST_BYTES:
                    raise ValueError(f"it is larger than {LARGEST_BYTES} bytes")
        return bytes(content)

    async def aclose(self) -> None:
        """Close connections."""
        fetching = tuple(self._fetching.values())
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
        await self._client.aclose()


Kept = TypeVar("Kept")


def _keep(kept: dict[str, Kept], url: str, value: Kept, most: int) -> None:
    """The oldest goes where there is no room."""
    kept.pop(url, None)
    while len(kept) >= most:
        del kept[next(iter(kept))]
    kept[url] = value


def _no_certificate(url: str) -> Unauthentic:
    return Unauthentic(f"SigningCertURL names no certificate of Amazon's: {url}")


async def authenticate(
    message: Envelope, certificates: Certificates, *, accept_sha1: bool, any_certificate_name: bool = False
) -> None:
    """Check that Amazon signed this message; its topic must be known to be ours already.

    Raises Unauthentic; IntakeUnavailable if the certificate cannot be had now.
    """
    digest = _digest(message.signature_version, accept_sha1)
    try:
        signature = base64.b64decode(message.signature, validate=True)
    except ValueError:
        raise Unauthentic("The SNS signature is no base64.") from None
    certificate = await certificates.get(certificate_url(message, any_name=any_certificate_name))
    # the wall clock: the certificate is of the real world, whatever time the operated world has
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise Unauthentic("The certificate that SNS names is not valid at this time.")
    try:
        _key(certificate).verify(signature, message.signed_text(), PKCS1v15(), digest)
    except InvalidSignature:
        raise Unauthentic("The SNS signature does not fit the message.") from None


def _digest(version: str, accept_sha1: bool) -> hashes.HashAlgorithm:
    if version == "1" and not accept_sha1:
        raise Unauthentic(
            "This SNS message is signed with SHA-1. Set the topic's attribute SignatureVersion to 2,"
            " or AUTOPILOT_CLOUDWATCH_ACCEPT_SHA1=true."
        )
    if version not in DIGESTS:
        raise Unauthentic(f"SNS SignatureVersion {version[:20]!r} is not known.")
    return DIGESTS[version]


def certificate_url(message: Envelope, *, any_name: bool = False) -> str:
    """Where Amazon keeps the certificate, built of known parts. Raises Unauthentic."""
    topic = TOPIC.fullmatch(message.topic_arn)
    if topic is None:
        raise Unauthentic("TopicArn is no ARN of an SNS topic.")
    suffix = ".cn" if topic["partition"] == "aws-cn" else ""
    folder = f"https://sns.{topic['region']}.amazonaws.com{suffix}/"
    name = message.signing_cert_url.removeprefix(folder)
    pattern = ANY_CERTIFICATE_NAME if any_name else CERTIFICATE_NAME
    if not (message.signing_cert_url.startswith(folder) and pattern.fullmatch(name)):
        expected = "<name>.pem" if any_name else "SimpleNotificationService-<32 hex digits>.pem"
        raise Unauthentic(f"SigningCertURL is not {folder}{expected}")
    return folder + name


def _key(certificate: x509.Certificate) -> RSAPublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise Unauthentic("The certificate that SNS names has no RSA key.")
    return key
