"""What masking hides, what it leaves alone, that it comes back, and that it takes no longer than it may."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.masking import leaked
from benchmarks.masking_corpus import credentials, log_lines, ordinary, personal_data
from collectors.base import Change, Document, Gap, GapReason, LogLine, Query, Series, SeriesRef, Span, Telemetry
from graph.masking import Masker, MaskingError, MaskPattern, check
from graph.quantities import quantities
from graph.state import Evidence, Finding, Suspect

MASKER = Masker(b"key of the test")
AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
PLACEHOLDER = re.compile(r"\[[a-z0-9-]+:[a-f][0-9a-f]{7}\]")
SECRETS = [*credentials(7, each=2), *personal_data(7, each=4)]


# --- what is hidden ---


def test_nothing_of_the_corpus_leaks() -> None:
    masked = [(sample, MASKER.mask(sample.text)) for sample in SECRETS]
    assert len(masked) > 200
    assert [(sample, text) for sample, text in masked if leaked(sample, text)] == []
    assert [(sample, text) for sample, text in masked if sample.keeps not in text] == []
    assert [(text, MASKER.mask(text)) for _, text in masked if MASKER.mask(text) != text] == []


def test_what_only_looks_like_a_secret_stays() -> None:
    samples = list(ordinary(7, each=8))
    assert [MASKER.mask(sample.text) for sample in samples] == [sample.text for sample in samples]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer s3cret-token", "Authorization: Bearer [authorization:*]"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key [aws-key:*] used"),
        ("postgres://app:hunter2@db:5432/x", "postgres://app:[url-password:*]@db:5432/x"),
        ("postgres://app:p@ss/w0rd@db:5432/x", "postgres://app:[url-password:*]@db:5432/x"),
        ("dsn postgres://app:hunter2S", "dsn postgres://app:[url-password:*]"),  # cut off, by its source or by us
        ("logged “no redis://:hunter2S” (6/min)", "logged “no redis://:[url-password:*]” (6/min)"),
        ("password=hunter2&next=1", "password=[secret:*]&next=1"),
        ("password=ab,c)9!;x, user=kim", "password=[secret:*], user=kim"),
        ('{"api_key": "hunter 2", "n": 1}', '{"api_key": "[secret:*]", "n": 1}'),
        ("User(password=hunter2, name=kim)", "User(password=[secret:*], name=kim)"),
        ("SET-COOKIE: a=b; Path=/ done", "SET-COOKIE: [cookie:*] done"),
        ("mail kim.lee+x@shop.example.com.", "mail [email:*]."),
        ("사용자kim@example.com으로 보냄", "사용자[email:*]으로 보냄"),
        ("연락처: 010-1234-5678번", "연락처: [phone:*]번"),
        ("to+82 10-1234-5678 500ms", "to+82 10-1234-5678 500ms"),  # «to+82» is no way to write a number
        ("to +82 10-1234-5678 500ms", "to [phone:*] 500ms"),
        ("resident 900101-1234567", "resident [resident-number:*]"),
        ("card 4111 1111 1111 1111", "card [card:*]"),
        ("card 378282246310005 amex", "card [card:*] amex"),
        ("iban DE89 3704 0044 0532 0130 00.", "iban [iban:*]."),
        ("ssn 123-45-6789", "ssn [ssn:*]"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "[private-key:*]"),
        ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/x cut off", "[private-key:*]"),
        ('{"kty":"oct","k":"DJl6DbUy7g0kBXl5OOiUVAvE2"}', '{"kty":"oct","k":"[private-key:*]"}'),
        ("root:$6$salt$UhOroseN1fEX9OsTeMbfd99:19000", "root:$6$[password-hash:*]:19000"),
        ('Digest username="a", uri="/", response="' + "0a" * 16 + '", qop=auth', "Digest [authorization:*], qop=auth"),
        ("C: AUTH PLAIN AGtpbQBodW50ZXIy", "C: AUTH PLAIN [secret:*]"),
        ("USER kim\n331 ok\nPASS hunter2\n230", "USER kim\n331 ok\nPASS [secret:*]\n230"),
        ("kind: Secret\ndata:\n  uri: SGl2ZXJmcSpTUDJPcVNu", "kind: Secret\ndata:\n  uri: [secret:*]"),
        ("Step 2/9 : ENV DB_PASSWORD hunter2", "Step 2/9 : ENV DB_PASSWORD [secret:*]"),
        ("SMTP_PASS=hunter2 dbPw: hunter3", "SMTP_PASS=[secret:*] dbPw: [secret:*]"),
        ("Uid=app;Pwd={hunter2};", "Uid=app;Pwd={[secret:*]};"),
        ("db-1:5432:app:kim:Hunter2x!", "db-1:5432:app:kim:[secret:*]"),
        ("dial kim:hunter2@tcp(db:3306)/app", "dial kim:[secret:*]@tcp(db:3306)/app"),
        ('~ password = "hunter1" -> "hunter2"', '~ password = "[secret:*]" -> "[secret:*]"'),
        ("echo hunter2 | docker login -u a --password-stdin", "echo [secret:*] | docker login -u a --password-stdin"),
        ("password is generated for root@host: Hunter2x!", "password is generated for root@host: [secret:*]"),
        ("mfa_code=895675 accepted", "mfa_code=[one-time-code:*] accepted"),
        ("auth 1//0" + "aB3-" * 10, "auth [gcp-token:*]"),
        ("HTTPS_PROXY=kim:hunter2@proxy:3128", "HTTPS_PROXY=kim:[url-password:*]@proxy:3128"),
        ("접속정보 kim / Hunter2x!", "접속정보 kim / [secret:*]"),
        ("비번은 Hunter2! 입니다", "비번은 [secret:*] 입니다"),
    ],
)
def test_what_stays_of_a_line(text: str, masked: str) -> None:
    assert re.sub(r":[a-f][0-9a-f]{7}\]", ":*]", MASKER.mask(text)) == masked


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",  # no check digit
        "cannot reach http://cache:6379",
        "image docker://sha256:0e65428f3c",
        "dd.span_id=4111111111111111",
        "900199-1234567",  # no such day
        "DE88 3704 0044 0532 0130 00",
        "000-45-6789",
        "[nio-8080:abcdef] started",
        "password=[REDACTED] token=null secret=${SECRET}",
        "TokenService.java:42 at InvalidToken: The token has expired",
        'token := r.Header.Get("X-Name") if token.kind == Kind.NAME',
        "self.api_key = api_key; password = os.environ['DB_PASSWORD']",
        "+ password = (sensitive value), token = (known after apply)",
        "existingSecret: redis-auth imagePullSecrets: [regcred]",
        "password_encryption=scram-sha-256 PASSWORD_HASHERS=argon2",
        "docker run -u 1000:1000 app -p 8080:80",
        "postgres://app:***@db-1.internal/app",
        "--- PASS: TestTokenRefresh (0.12s)",
        "io.jsonwebtoken:jjwt-api:0.12.5",
    ],
)
def test_leaves_what_is_no_secret(text: str) -> None:
    assert MASKER.mask(text) == text


def test_addresses_are_hidden_on_demand() -> None:
    text = "from 10.0.3.7:5432 and 127.0.0.1, fe80::1%eth0 and 2001:db8::8a2e:370:7334 at 09:15:00 v1.2.3"
    assert MASKER.mask(text) == text
    masked = Masker(b"k", ips=True).mask(text)
    assert not re.search(r"10\.0|127|fe80|2001", masked)
    assert masked.endswith("at 09:15:00 v1.2.3")


# --- placeholders ---


def test_the_same_value_has_the_same_placeholder_for_everybody_with_the_key() -> None:
    one = MASKER.mask("user Kim@Example.com")[5:]
    assert one in MASKER.mask('{"mail":"kim@example.com"}')
    assert one in Masker(b"key of the test").mask("kim@example.com")
    assert one not in Masker(b"another key").mask("kim@example.com")
    assert one not in MASKER.mask("lee@example.com")
    spellings = {MASKER.mask(text) for text in ("010-1234-5678", "010 1234 5678", "+82 10-1234-5678", "+821012345678")}
    assert len(spellings) == 1


def test_kinds_are_told_apart() -> None:
    as_secret, as_password = MASKER.mask("token=hunter22"), MASKER.mask("redis://:hunter22@cache")
    assert PLACEHOLDER.findall(as_secret)[0][-7:] != PLACEHOLDER.findall(as_password)[0][-7:]


def test_a_placeholder_is_no_number() -> None:
    text = "user{}@example.com failed 1,284 times in 2.5 s"
    for n in range(300):
        told = quantities(MASKER.mask(text.format(n)))
        assert [q.value for q in told] == [1284.0, 2.5]


def test_originals_come_back_from_our_own_texts() -> None:
    texts = ["kim@example.com paid", "nothing", "password=hunter22 of Lee@example.com"]
    masked = [MASKER.mask(text) for text in texts]
    wanted = MASKER.placeholders(" ".join(masked))
    assert len(wanted) == 3
    stranger = MASKER.mask("x@example.org")
    found = MASKER.originals(iter(texts), [*wanted, stranger])
    assert sorted(found.values()) == ["Lee@example.com", "hunter22", "kim@example.com"]
    assert found[masked[0].removesuffix(" paid")] == "kim@example.com"


# --- models ---


def test_a_text_that_cannot_be_masked_hides_no_other_original() -> None:
    late = Masker(b"key of the test", within_s=-1.0)
    texts = ["password=hunter2x9", "mail kim@example.com"]
    wanted = MASKER.placeholders(" ".join(map(MASKER.mask, texts)))
    assert sorted(late.originals(texts, wanted).values()) == ["hunter2x9", "kim@example.com"]


def test_evidence_is_masked_and_still_joins() -> None:
    ref = SeriesRef(source="datadog", component="pay", metric="m", query="sum:m{user:kim@example.com}")
    finding = Finding(
        id="E1",
        kind="log",
        component="payment-service",
        signal="login of kim@example.com",
        at=AT,
        observed=50.0,
        summary="50 new lines: kim@example.com",
        excerpt="password=hunter22",
        link="https://logs.example.com/?q=kim%40example.com",
        sha256="ab" * 32,
        ref=ref,
    )
    suspect = Suspect(component="payment-service", score=0.5, findings=("E1",), why="kim@example.com was locked out")
    gap = Gap(
        source="loki", reason=GapReason.FORBIDDEN, detail="no access with token=abcdef123", mend="ask kim@example.com"
    )
    evidence = Evidence(digest="d" * 64, findings=(finding,), suspects=(suspect,), gaps=(gap,))
    masked = MASKER.masked_evidence(evidence)
    (seen,) = masked.findings
    assert (seen.id, seen.component, seen.sha256, seen.observed, seen.ref) == (
        "E1",
        "payment-service",
        "ab" * 32,
        50.0,
        ref,
    )
    assert masked.gaps[0].reason is GapReason.FORBIDDEN
    free_text = Evidence.model_dump_json(masked, exclude={"findings": {0: {"ref"}}})
    assert not re.search("kim|hunter22|abcdef123", free_text)
    assert free_text.count("[email:") == 5
    assert MASKER.masked_evidence(masked) == masked


def test_evidence_without_secrets_stays_the_very_same() -> None:
    evidence = Evidence(digest="d", findings=(), suspects=(Suspect(component="cart", score=0.1, findings=("E1",)),))
    assert MASKER.masked_evidence(evidence) is evidence


def test_telemetry_is_masked_and_still_joins() -> None:
    mail, trace = "kim@example.com", "4bf92f3577b34da6a3ce929d0e0e4736"
    ref = SeriesRef(source="loki", component="cart", metric="errors", query=f'{{user="{mail}"}}')
    line = LogLine(
        component="cart", at=AT, level="error", message=f"{mail} failed", trace_id=trace, span_id="00f067aa0ba902b7"
    )
    span = Span(
        component="cart",
        trace_id=trace,
        span_id="00f067aa0ba902b7",
        operation=f"GET /users/{mail}",
        start_s=1.0,
        duration_ms=2.0,
        peer="orders-db",
        error=f"NotFound: {mail}",
    )
    telemetry = Telemetry(
        source="loki",
        queries=(Query(source="loki", text=f'{{user="{mail}"}}', link=f"https://x/?q={mail}", start=AT, end=AT),),
        series=(Series(ref=ref, epoch_s=(1.0, 2.0), values=(3.0, 4.0)),),
        logs=(line,),
        spans=(span,),
        changes=(Change(component="cart", at=AT, kind="deploy", title=f"by {mail}", author=mail, version="v2.14.0"),),
        documents=(Document(title="Runbook", text=f"call {mail} or 010-1234-5678", services=("cart",)),),
    )
    masked = MASKER.masked_telemetry(telemetry)
    assert "kim@" not in masked.model_dump_json()
    assert (masked.logs[0].trace_id, masked.spans[0].trace_id, masked.spans[0].peer) == (trace, trace, "orders-db")
    assert masked.series[0].values == (3.0, 4.0)
    assert masked.changes[0].version == "v2.14.0"


# --- this site's own ---


def test_a_site_hides_more() -> None:
    pattern = MaskPattern(name="customer", regex=r"\bC-(?P<number>\d{6})\b")
    masked = Masker(b"k", patterns=[(pattern.name, pattern.regex)]).mask("C-123456 ordered")
    assert re.fullmatch(r"C-\[customer:[a-f][0-9a-f]{7}\] ordered", masked)


@pytest.mark.parametrize(
    ("name", "regex", "said"),
    [
        ("customer", "C-(", "no regular expression"),
        ("customer", "x*", "matches the empty text"),
        ("customer", "(a+)+b", "inside a repeat"),
        ("customer", "((a+))+b", "inside a repeat"),
        ("customer", "(a|aa)*b", "inside a repeat"),
        ("customer", r"([)a]|\)){2,}b", "inside a repeat"),
        ("customer", r"(?:\w+\s?)*!x", "inside a repeat"),
        ("customer", "a" * 501, "at most 500"),
        ("Customer No", "C-1", "should match pattern"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(name: str, regex: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MaskPattern(name=name, regex=regex)


@pytest.mark.parametrize("regex", [r"\bORD-\d{8}\b", r"(?:\d{4}-){3}\d+", "(?:KR|US)-[(+*]+", r"(?:\w+\.)*+x", r"a\)+"])
def test_a_pattern_that_takes_no_longer_than_its_text_is_taken(regex: str) -> None:
    assert MaskPattern(name="customer", regex=regex).regex == regex


# --- where it fails, nothing leaves ---


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        "AKIAIOSFODNN7EXAMPLE",
        "postgres://app:hunter2@db/x",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2ln",
        'secret="aB3dE5gH7jK9mN1pQ3sT5"',
    ],
)
def test_a_second_look_finds_what_is_left(text: str) -> None:
    with pytest.raises(MaskingError, match="is left in the text"):
        check(["nothing here", text])
    check([MASKER.mask(text)])


def test_masking_that_takes_too_long_fails() -> None:
    with pytest.raises(MaskingError, match=r"a text of 15 characters took over -1 s"):
        Masker(b"k", within_s=-1.0).mask("kim@example.com")


# --- any text at all ---

_PARTS = [
    *(
        "password",
        "token=",
        'secret:"',
        "'",
        '"',
        "\\",
        "\\n",
        "%22",
        "&quot;",
        "://",
        "a:b@",
        "@",
        "@example.com",
        "[",
        "]",
    ),
    *(
        "[email:abcdef]",
        "eyJ",
        ".",
        "-",
        "bearer ",
        "authorization: ",
        "cookie: a=b; ",
        "AKIA",
        "a" * 64,
        "0" * 16,
        "4111 ",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "<password>",
        "--token ",
        "010-",
        "+82 ",
        "DE89 ",
        ":",
        "key",
        "\n",
        " ",
        "비밀번호 ",
        "x1Y2z3",
    ),
]


@given(st.lists(st.sampled_from(_PARTS) | st.text(max_size=4), max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_masking_twice_is_masking_once(text: str) -> None:
    try:
        masked = MASKER.mask(text)
    except MaskingError:
        return  # nothing leaves
    assert MASKER.mask(masked) == masked


@pytest.mark.parametrize("part", [*_PARTS, "a.", "a@a.", "1", "1.", "1:", "password=,a", ':password "', "a:password:"])
def test_no_long_text_exceeds_its_time(part: str) -> None:
    text = (part * 100_000)[:100_000]
    masker = Masker(b"k", ips=True)  # the usual time; were a pattern quadratic, it would not do
    masked = masker.mask(text)
    assert masker.mask(masked) == masked


def test_ordinary_lines_are_left_alone() -> None:
    lines = list(log_lines(3, 200))
    assert [MASKER.mask(line) for line in lines] == lines
