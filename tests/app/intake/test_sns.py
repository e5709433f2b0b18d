"""SNS messages: signed by Amazon, or refused."""

import asyncio
import base64
import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding

from app.intake import _sns
from app.intake._sns import Certificates, Envelope, authenticate, envelope
from app.intake.base import IntakeUnavailable, Unauthentic, UnreadablePayload

TOPIC = "arn:aws:sns:us-west-2:123456789012:alarms"
FOLDER = "https://sns.us-west-2.amazonaws.com/"
NAME = "SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
NOTIFICATION = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": TOPIC,
    "Subject": 'ALARM: "checkout-5xx" in US West (Oregon)',
    "Message": '{"AlarmName":"checkout-5xx \\u2014 주문"}\n',
    "Timestamp": "2025-05-02T00:54:06.655Z",
    "SignatureVersion": "2",
    "SigningCertURL": FOLDER + NAME,
    "UnsubscribeURL": FOLDER + "?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:us-west-2:123456789012:alarms:1",
}
SUBSCRIPTION = {
    "Type": "SubscriptionConfirmation",
    "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
    "Token": "2336412f37fb687f5d51e6e241d09c805a5a57b30d712f794cc5f6a988666d92",
    "TopicArn": TOPIC,
    "Message": "You have chosen to subscribe to the topic.\nTo confirm it, visit the SubscribeURL in this message.",
    "SubscribeURL": FOLDER
    + "?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:alarms&Token=2336",
    "Timestamp": "2025-04-26T20:45:04.751Z",
    "SignatureVersion": "2",
    "SigningCertURL": FOLDER + NAME,
}
UNSUBSCRIPTION = SUBSCRIPTION | {"Type": "UnsubscribeConfirmation", "MessageId": "47138184-6831-46b8-8f7c-afc488602d7d"}
SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
    "UnsubscribeConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip

Message = dict[str, str]
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Amazon:
    """Signs like SNS, and serves its certificate; ``requests`` are all that left for anywhere."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.key, self.pem = key, certificate(key)
        self.requests: list[str] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, content=self.pem)
        self.certificates = Certificates(httpx.MockTransport(self._serve))

    def sign(self, message: Message) -> Message:
        """The message with its signature."""
        plain = "".join(f"{k}\n{message[k]}\n" for k in SIGNED[message["Type"]] if k in message).encode()
        digest = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
        return message | {"Signature": base64.b64encode(self.key.sign(plain, PKCS1v15(), digest)).decode()}

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(str(request.url))
        return self.answer(request)


def certificate(key: Key, *, start_days: int = -1, end_days: int = 365) -> bytes:
    """Self-made, valid from and until so many days from now."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(days=start_days)).not_valid_after(now + timedelta(days=end_days))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def amazon(key: rsa.RSAPrivateKey) -> Amazon:
    return Amazon(key)


def read(message: Message) -> Envelope:
    return Envelope.model_validate(message)


async def check(amazon: Amazon, message: Message, *, accept_sha1: bool = False) -> None:
    await authenticate(read(message), amazon.certificates, accept_sha1=accept_sha1)


def test_the_signed_text_is_what_amazon_signs() -> None:
    vector = {
        "Type": "Notification",
        "Message": '{"AlarmName":"a"}',
        "MessageId": "m-1",
        "Subject": 'ALARM: "a"',
        "Timestamp": "2026-01-01T00:00:00.000Z",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:t",
        "SignatureVersion": "2",
        "Signature": "",
        "SigningCertURL": "",
    }
    digest = sha256(read(vector).signed_text()).hexdigest()
    assert digest == "db91d741998c9aca7e88b4b21f6a58df583b4a5a276b91da2c5d8d00695cdbe3"


@pytest.mark.parametrize("message", [NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION], ids=lambda m: m["Type"])
async def test_each_type_is_accepted_as_signed(amazon: Amazon, message: Message) -> None:
    await check(amazon, amazon.sign(message))
    assert amazon.requests == [FOLDER + NAME]


@pytest.mark.parametrize("message", [NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION], ids=lambda m: m["Type"])
async def test_sha1_is_refused_unless_the_setting_says_otherwise(amazon: Amazon, message: Message) -> None:
    signed = amazon.sign(message | {"SignatureVersion": "1"})
    with pytest.raises(Unauthentic, match="AUTOPILOT_CLOUDWATCH_ACCEPT_SHA1"):
        await check(amazon, signed)
    await check(amazon, signed, accept_sha1=True)


async def test_no_message_passes_for_one_of_another_version(amazon: Amazon) -> None:
    signed = amazon.sign(NOTIFICATION)
    for version in ("1", "3", "", "02"):
        with pytest.raises(Unauthentic):
            await check(amazon, signed | {"SignatureVersion": version}, accept_sha1=True)


async def test_a_message_without_subject(amazon: Amazon) -> None:
    plain = {k: v for k, v in NOTIFICATION.items() if k != "Subject"}
    await check(amazon, amazon.sign(plain))
    with pytest.raises(Unauthentic):
        await check(amazon, amazon.sign(plain) | {"Subject": "added on the way"})
    await check(amazon, amazon.sign(plain | {"Subject": ""}))


@pytest.mark.parametrize(
    ("message", "field"), [(m, f) for m in (NOTIFICATION, SUBSCRIPTION) for f in SIGNED[m["Type"]] if f != "Type"]
)
async def test_every_signed_field_is_protected(amazon: Amazon, message: Message, field: str) -> None:
    signed = amazon.sign(message)
    tampered = signed[field].replace("alarms", "alarm5") if field == "TopicArn" else signed[field] + " "
    with pytest.raises(Unauthentic):
        await check(amazon, signed | {field: tampered})


@pytest.mark.parametrize("signature", ["", "bm90IGEgc2lnbmF0dXJl"])
async def test_a_wrong_signature(amazon: Amazon, signature: str) -> None:
    with pytest.raises(Unauthentic, match="does not fit"):
        await check(amazon, NOTIFICATION | {"Signature": signature})


@pytest.mark.parametrize("signature", ["no base64!", "Zm9v\nYmFy", "Zm9vYmF", "é"])
async def test_a_signature_that_is_none(amazon: Amazon, signature: str) -> None:
    with pytest.raises(Unauthentic, match="no base64"):
        await check(amazon, NOTIFICATION | {"Signature": signature})
    assert amazon.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-west-2.amazonaws.com/" + NAME,
        "HTTPS://sns.us-west-2.amazonaws.com/" + NAME,
        "https://sns.us-west-2.amazonaws.com.evil.io/" + NAME,
        "https://evil.io/sns.us-west-2.amazonaws.com/" + NAME,
        "https://evil.io#https://sns.us-west-2.amazonaws.com/" + NAME,
        "https://sns.us-west-2.amazonaws.com@evil.io/" + NAME,
        "https://evil@sns.us-west-2.amazonaws.com/" + NAME,
        "https://sns.us-west-2.amazonaws.com:8443/" + NAME,
        "https://sns.us-west-2.amazonaws.com:443/" + NAME,
        "https://sns.us-east-1.amazonaws.com/" + NAME,
        "https://sns.us-west-2.amazonaws.com.cn/" + NAME,
        "https://sns-us-west-2.amazonaws.com/" + NAME,
        "https://bucket.s3.us-west-2.amazonaws.com/" + NAME,
        FOLDER + NAME + "?x=1",
        FOLDER + NAME + "#x",
        FOLDER + NAME + "\n",
        FOLDER + "\t" + NAME,
        FOLDER + "../" + NAME,
        FOLDER + "a/" + NAME,
        NAME,
        FOLDER + "x.pem",
        FOLDER + NAME.replace("0123", "0G23"),
        FOLDER + "?Action=ConfirmSubscription",
        "file:///etc/passwd",
        "https://169.254.169.254/latest/meta-data/" + NAME,
        "",
    ],
)
async def test_no_request_leaves_for_another_place(amazon: Amazon, url: str) -> None:
    with pytest.raises(Unauthentic, match="SigningCertURL"):
        await check(amazon, amazon.sign(NOTIFICATION) | {"SigningCertURL": url})
    assert amazon.requests == []


@pytest.mark.parametrize(
    ("topic", "folder"),
    [
        ("arn:aws-cn:sns:cn-north-1:123456789012:alarms", "https://sns.cn-north-1.amazonaws.com.cn/"),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:alarms", "https://sns.us-gov-west-1.amazonaws.com/"),
    ],
)
async def test_other_partitions_have_hosts_of_their_own(amazon: Amazon, topic: str, folder: str) -> None:
    await check(amazon, amazon.sign(NOTIFICATION | {"TopicArn": topic, "SigningCertURL": folder + NAME}))
    with pytest.raises(Unauthentic):
        await check(amazon, amazon.sign(NOTIFICATION | {"TopicArn": topic}))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302, headers={"Location": "https://evil.io/" + NAME}),
        httpx.Response(503),
        httpx.Response(200, text="<html>a page of the firewall</html>"),
        httpx.Response(200, content=b"x" * (_sns.LARGEST_BYTES + 1)),
    ],
    ids=["redirect", "down", "no certificate", "too large"],
)
async def test_what_is_no_certificate_is_asked_for_again_later(amazon: Amazon, answer: httpx.Response) -> None:
    amazon.answer = lambda _: answer
    with pytest.raises(IntakeUnavailable):
        await check(amazon, amazon.sign(NOTIFICATION))
    assert amazon.requests == [FOLDER + NAME], "no redirect is followed"
    amazon.answer = lambda _: httpx.Response(200, content=amazon.pem)
    await check(amazon, amazon.sign(NOTIFICATION))


@pytest.mark.parametrize("status", [403, 404])
async def test_a_certificate_that_amazon_does_not_have_is_a_forgery(
    amazon: Amazon, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    amazon.answer = lambda _: httpx.Response(status, content=amazon.pem)
    for _ in range(3):
        with pytest.raises(Unauthentic, match="SigningCertURL"):
            await check(amazon, amazon.sign(NOTIFICATION))
    assert amazon.requests == [FOLDER + NAME], "remembered"
    amazon.answer = lambda _: httpx.Response(200, content=amazon.pem)
    monkeypatch.setattr(_sns, "MISSED_S", 0.0)
    await check(amazon, amazon.sign(NOTIFICATION))


async def test_few_forgeries_are_remembered_and_none_pushes_a_certificate_out(
    amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sns, "MISSED", 2)
    await check(amazon, amazon.sign(NOTIFICATION))
    amazon.answer = lambda _: httpx.Response(404)
    for name in ("0", "1", "2", "2", "1", "0"):
        with pytest.raises(Unauthentic):
            await amazon.certificates.get(FOLDER + name)
    await check(amazon, amazon.sign(NOTIFICATION))
    assert [url.removeprefix(FOLDER) for url in amazon.requests] == [NAME, "0", "1", "2", "0"]


async def test_many_at_once_ask_once_and_share_what_comes(amazon: Amazon) -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    requests: list[str] = []

    async def slow(request: httpx.Request) -> httpx.Response:
        requests.append(str(request.url))
        asked.set()
        await go.wait()
        return httpx.Response(503 if len(requests) == 1 else 200, content=amazon.pem)

    certificates = Certificates(httpx.MockTransport(slow))
    url = FOLDER + NAME
    first, *others = (asyncio.create_task(certificates.get(url)) for _ in range(20))
    await asked.wait()
    first.cancel()
    go.set()
    answers = await asyncio.gather(*others, return_exceptions=True)
    assert {type(answer) for answer in answers} == {IntakeUnavailable}
    assert requests == [url]
    found = await asyncio.gather(*(certificates.get(url) for _ in range(20)))
    assert (len(set(map(id, found))), len(requests)) == (1, 2)
    await certificates.aclose()


async def test_closing_waits_for_nobody() -> None:
    asked = asyncio.Event()

    async def never(_: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    certificates = Certificates(httpx.MockTransport(never))
    waiting = asyncio.create_task(certificates.get(FOLDER + NAME))
    await asked.wait()
    await certificates.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_certificate_with_more_behind_it_is_too_large(amazon: Amazon) -> None:
    amazon.answer = lambda _: httpx.Response(200, content=amazon.pem + b"\n" * _sns.LARGEST_BYTES)
    with pytest.raises(IntakeUnavailable, match="larger"):
        await check(amazon, amazon.sign(NOTIFICATION))


@pytest.mark.parametrize("status", [203, 302, 429, 500])
async def test_a_certificate_on_an_error_page_is_not_believed(amazon: Amazon, status: int) -> None:
    amazon.answer = lambda _: httpx.Response(status, content=amazon.pem)
    with pytest.raises(IntakeUnavailable, match=str(status)):
        await check(amazon, amazon.sign(NOTIFICATION))


async def test_a_compressed_certificate_may_unpack_to_anything(amazon: Amazon) -> None:
    packed = gzip.compress(amazon.pem)
    amazon.answer = lambda _: httpx.Response(200, content=packed, headers={"Content-Encoding": "gzip"})
    with pytest.raises(IntakeUnavailable, match="compressed"):
        await check(amazon, amazon.sign(NOTIFICATION))


async def test_a_host_that_does_not_answer(amazon: Amazon) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("no answer", request=request)

    amazon.answer = refuse
    with pytest.raises(IntakeUnavailable):
        await check(amazon, amazon.sign(NOTIFICATION))


@pytest.mark.parametrize(("start_days", "end_days"), [(-30, -1), (1, 30)], ids=["expired", "not yet valid"])
async def test_a_certificate_out_of_its_time(amazon: Amazon, start_days: int, end_days: int) -> None:
    amazon.pem = certificate(amazon.key, start_days=start_days, end_days=end_days)
    with pytest.raises(Unauthentic, match="not valid"):
        await check(amazon, amazon.sign(NOTIFICATION))


async def test_another_key(amazon: Amazon) -> None:
    amazon.pem = certificate(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(Unauthentic, match="does not fit"):
        await check(amazon, amazon.sign(NOTIFICATION))


async def test_a_key_that_is_not_rsa(amazon: Amazon) -> None:
    amazon.pem = certificate(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(Unauthentic, match="RSA"):
        await check(amazon, amazon.sign(NOTIFICATION))


async def test_a_certificate_is_fetched_once_and_few_are_kept(amazon: Amazon) -> None:
    signed = amazon.sign(NOTIFICATION)
    for _ in range(3):
        await check(amazon, signed)
    assert len(amazon.requests) == 1
    for number in range(_sns.KEPT):  # as many others push it out
        await amazon.certificates.get(f"{FOLDER}{number}")
    await check(amazon, signed)
    assert amazon.requests.count(FOLDER + NAME) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        b'{"Type":"Notification"}',
        b'{"Type":"Other","MessageId":"1","TopicArn":"t","Message":"m"}',
        b'{"Type":["Notification"],"MessageId":1,"TopicArn":null,"Message":{}}',
        b"\xff\xfe",
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(UnreadablePayload):
        envelope(body)
