"""Log lines with secrets and personal data in them, and tempting ones without: drawn by a seed, never real.

Formats are the vendors' documented ones; the places they stand in are those of real logs. Written before the masks.
"""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE64 = ALNUM + "+/"
URLSAFE = ALNUM + "-_"
UPPER = string.ascii_uppercase + string.digits
BASE32 = string.ascii_uppercase + "234567"
SYMBOLS = "!#$%^*+-_.~?@"
SERVICES = ("payment-service", "checkout-service", "cart", "orders-db", "user-service", "notification-worker")


@dataclass(frozen=True)
class Sample:
    """One text. ``secret`` must not survive masking; where it is empty, nothing may change. ``keeps`` must survive."""

    kind: str
    text: str
    secret: str = ""
    keeps: str = ""


class Draw(random.Random):
    """Random strings of an alphabet."""

    def of(self, alphabet: str, length: int) -> str:
        """So many characters."""
        return "".join(self.choices(alphabet, k=length))

    def mixed(self, alphabet: str, length: int) -> str:
        """So many characters, a digit among them, as a generated key has."""
        text = self.of(alphabet, length - 1)
        at = self.randrange(length)
        return text[:at] + self.choice(string.digits) + text[at:]

    def uuid(self) -> str:
        """A random UUID."""
        return "-".join(self.of(HEX, n) for n in (8, 4, 4, 4, 12))

    def password(self) -> str:
        """As people and generators make them."""
        words = ("hunter", "Winter", "dragon", "correcthorse", "shop", "admin", "S3oul", "letmein", "Passw0rd")
        return self.choice(
            [
                self.choice(words) + self.of(string.digits, self.randint(1, 4)) + self.choice(["", "!", "#", "$"]),
                self.mixed(ALNUM, self.randint(8, 24)),
                self.mixed(ALNUM + SYMBOLS, self.randint(10, 20)).strip(".?-_@#%"),
                "-".join(self.choice(words).lower() for _ in range(4)),
                self.of(string.digits, self.randint(6, 8)),
            ]
        )


Maker = Callable[[Draw], str]


# --- credentials, by the vendors' formats --------------------------------------------------------------------------


def _jwt(draw: Draw) -> str:
    def part(value: Mapping[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    header = part({"alg": draw.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"})
    claims = part({"sub": draw.of(string.digits, 8), "exp": draw.randint(1_700_000_000, 1_800_000_000)})
    return f"{header}.{claims}.{draw.of(URLSAFE, draw.choice([43, 86]))}"


def _basic(draw: Draw) -> str:
    return base64.b64encode(f"{draw.choice(SERVICES)}:{draw.password()}".encode()).decode()


def _pem(draw: Draw) -> str:
    what = draw.choice(["RSA ", "EC ", "", "OPENSSH ", "ENCRYPTED "])
    body = "\n".join(draw.of(BASE64, 64) for _ in range(draw.randint(3, 25)))
    return f"-----BEGIN {what}PRIVATE KEY-----\n{body}\n{draw.of(BASE64, 22)}==\n-----END {what}PRIVATE KEY-----"


def _openai(draw: Draw) -> str:
    return draw.choice(
        [
            f"sk-{draw.mixed(ALNUM, 20)}T3BlbkFJ{draw.of(ALNUM, 20)}",
            f"sk-proj-{draw.mixed(URLSAFE, 74)}T3BlbkFJ{draw.of(URLSAFE, 74)}",
        ]
    )


TOKENS: Mapping[str, Maker] = {
    "aws access key id": lambda d: d.choice(["AKIA", "ASIA"]) + d.of(BASE32, 16),
    "gcp api key": lambda d: "AIza" + d.of(URLSAFE, 35),
    "gcp oauth token": lambda d: "ya29." + d.of(URLSAFE, 120),
    "gcp client secret": lambda d: "GOCSPX-" + d.of(URLSAFE, 28),
    "azure client secret": lambda d: f"{d.of(ALNUM, 3)}8Q~{d.of(ALNUM + '._~-', 34)}".rstrip(".~-") + "x",
    "github token": lambda d: d.choice(["ghp_", "gho_", "ghu_", "ghs_", "ghr_"]) + d.of(ALNUM, 36),
    "github fine-grained token": lambda d: f"github_pat_{d.of(ALNUM, 22)}_{d.of(ALNUM, 59)}",
    "gitlab token": lambda d: d.choice(["glpat-", "gldt-", "glrt-", "glptt-"]) + d.of(URLSAFE, 20),
    "slack token": lambda d: (
        f"xox{d.choice('bp')}-{d.of(string.digits, 12)}-{d.of(string.digits, 12)}-{d.of(ALNUM, 24)}"
    ),
    "slack app token": lambda d: f"xapp-1-A{d.of(UPPER, 10)}-{d.of(string.digits, 13)}-{d.of(HEX, 64)}",
    "stripe key": lambda d: d.choice(["sk_live_", "sk_test_", "rk_live_"]) + d.of(ALNUM, d.choice([24, 99])),
    "stripe webhook secret": lambda d: "whsec_" + d.of(ALNUM, 32),
    "toss payments key": lambda d: d.choice(["live_sk_", "test_sk_", "live_gsk_"]) + d.of(ALNUM, 32),
    "openai key": _openai,
    "anthropic key": lambda d: f"sk-ant-api03-{d.of(URLSAFE, 93)}AA",
    "langfuse key": lambda d: "sk-lf-" + d.uuid(),
    "hugging face token": lambda d: "hf_" + d.of(string.ascii_letters, 34),
    "groq key": lambda d: "gsk_" + d.of(ALNUM, 52),
    "replicate token": lambda d: "r8_" + d.of(ALNUM, 37),
    "npm token": lambda d: "npm_" + d.of(ALNUM, 36),
    "pypi token": lambda d: "pypi-AgEIcHlwaS5vcmc" + d.of(URLSAFE, 150),
    "rubygems key": lambda d: "rubygems_" + d.of(HEX, 48),
    "sendgrid key": lambda d: f"SG.{d.of(URLSAFE, 22)}.{d.of(URLSAFE, 43)}",
    "twilio key": lambda d: "SK" + d.of(HEX, 32),
    "mailgun key": lambda d: "key-" + d.of(HEX, 32),
    "mailchimp key": lambda d: f"{d.of(HEX, 32)}-us{d.randint(1, 21)}",
    "new relic key": lambda d: "NRAK-" + d.of(UPPER, 27),
    "grafana token": lambda d: f"glsa_{d.of(ALNUM, 32)}_{d.of(HEX, 8)}",
    "sentry token": lambda d: "sntrys_" + d.of(BASE64, 120) + "_" + d.of(BASE64, 43),
    "digitalocean token": lambda d: "dop_v1_" + d.of(HEX, 64),
    "shopify token": lambda d: d.choice(["shpat_", "shpss_", "shpca_"]) + d.of(HEX, 32),
    "square token": lambda d: "sq0atp-" + d.of(URLSAFE, 22),
    "vault token": lambda d: "hvs." + d.of(URLSAFE, 95),
    "terraform token": lambda d: f"{d.of(ALNUM, 14)}.atlasv1.{d.of(ALNUM, 67)}",
    "docker token": lambda d: "dckr_pat_" + d.of(URLSAFE, 27),
    "databricks token": lambda d: "dapi" + d.of(HEX, 32),
    "doppler token": lambda d: "dp.pt." + d.of(ALNUM, 43),
    "postman key": lambda d: f"PMAK-{d.of(HEX, 24)}-{d.of(HEX, 34)}",
    "atlassian token": lambda d: "ATATT3xFfGF0" + d.of(URLSAFE, 171) + "=" + d.of(HEX.upper(), 8),
    "linear key": lambda d: "lin_api_" + d.of(ALNUM, 40),
    "notion token": lambda d: "ntn_" + d.of(ALNUM, 46),
    "figma token": lambda d: "figd_" + d.of(URLSAFE, 40),
    "airtable token": lambda d: f"pat{d.of(ALNUM, 14)}.{d.of(HEX, 64)}",
    "heroku key": lambda d: "HRKU-AA" + d.of(URLSAFE, 58),
    "planetscale password": lambda d: "pscale_pw_" + d.of(URLSAFE, 43),
    "supabase token": lambda d: "sbp_" + d.of(HEX, 40),
    "dynatrace token": lambda d: f"dt0c01.{d.of(BASE32, 24)}.{d.of(BASE32, 64)}",
    "telegram bot token": lambda d: f"{d.of('123456789', 10)}:AA{d.of(URLSAFE, 33)}",
    "age key": lambda d: "AGE-SECRET-KEY-1" + d.of("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    "jwt": _jwt,
}
"""Told by their own look, wherever they stand."""

TOKEN_PLACES = (
    "{at} ERROR [{service}] upstream rejected {secret} with 401 trace_id={trace}",
    '{{"ts":"{at}","level":"error","service":"{service}","msg":"bad credential {secret}","trace_id":"{trace}"}}',
    "{at} WARN c.s.Client - retrying with '{secret}' (attempt 2 of 5), trace {trace}",
    "GET /v1/items?after=10&k={secret} 403 12ms trace={trace}",
    "+ export VALUE={secret}\n+ ./deploy.sh {trace}",
    "java.lang.IllegalStateException: cannot use {secret}: refused\n\tat com.shop.Pay.run(Pay.java:42) {trace}",
    "{at} 오류 {service}: 인증값 {secret}이 거부되었습니다 추적 {trace}",
    "env: [PATH=/usr/bin, X={secret}, TRACE={trace}]",
)


def _secret_name(draw: Draw) -> str:
    return draw.choice(
        [
            *("password", "passwd", "pwd", "db_password", "DB_PASSWORD", "spring.datasource.password", "userPassword"),
            *("secret", "client_secret", "clientSecret", "JWT_SECRET", "SECRET_KEY_BASE", "app.secret"),
            *("token", "access_token", "refreshToken", "auth_token", "X_AUTH_TOKEN", "csrf_token", "token_v2"),
            *("api_key", "apiKey", "API_KEY", "apikey", "x-api-key", "STRIPE_API_KEY", "private_key", "encryption_key"),
            *("access_key", "secret_key", "signing-key", "passphrase", "credential", "DJANGO_SECRET_KEY"),
        ]
    )


KEY_VALUE_PLACES = (
    "{at} DEBUG {service} starting with {name}={secret} region=eu-west-1 trace_id={trace}",
    '{{"level":"info","{name}":"{secret}","trace_id":"{trace}"}}',
    '{{"level": "info", "{name}": "{secret}", "trace_id": "{trace}"}}',
    "config: {name}: {secret}\nregion: eu-west-1\ntrace: {trace}",
    "{{'{name}': '{secret}', 'trace_id': '{trace}'}}",
    "array('{name}' => '{secret}', 'trace' => '{trace}')",
    'msg="{{\\"{name}\\":\\"{secret}\\",\\"trace\\":\\"{trace}\\"}}"',
    "Config({name}={secret}, region=eu-west-1, trace={trace})",
    "--{name} {secret} --trace {trace}",
    "--{name}={secret} --trace {trace}",
    "<{name}>{secret}</{name}><trace>{trace}</trace>",
    'level=warn {name}="{secret}" trace_id={trace}',
    "map[{name}:{secret} trace:{trace}]",
    "{name} = {secret}\ntrace = {trace}",
    "{name} := '{secret}'; trace {trace}",
    "{at} {service}\t{name}: {secret}\ttrace={trace}",
)


def _key_values(draw: Draw) -> Sample:
    secret = draw.password()
    return _placed(draw, "key=value", draw.choice(KEY_VALUE_PLACES), secret, name=_secret_name(draw))


def _query_strings(draw: Draw) -> Sample:
    secret = quote(draw.password(), safe="")
    place = draw.choice(
        [
            "GET /v1/pay?{name}={secret}&currency=KRW&trace={trace} 200",
            "https://api.shop.example/cb?state=1&{name}={secret}#trace={trace}",
            'access: "POST /login?user=kim&{name}={secret} HTTP/1.1" 200 trace={trace}',
        ]
    )
    return _placed(draw, "query string", place, secret, name=_secret_name(draw))


def _sentences(draw: Draw) -> Sample:
    secret = draw.mixed(ALNUM, draw.randint(16, 40))
    place = draw.choice(
        [
            "{at} ERROR invalid token {secret} for {service} trace={trace}",
            '{at} ERROR api key "{secret}" was rejected trace={trace}',
            "{at} WARN using secret {secret} from the environment, trace={trace}",
            "{at} ERROR token ({secret}) not found trace={trace}",
            "{at} INFO new password is {secret} trace={trace}",
            "{at} 비밀번호: {secret} 추적 {trace}",
            "{at} 토큰은 {secret} 입니다 추적 {trace}",
        ]
    )
    return _placed(draw, "secret in a sentence", place, secret)


def _headers(draw: Draw) -> Sample:
    scheme, secret = draw.choice(
        [
            ("Bearer", draw.mixed(URLSAFE, draw.randint(20, 60))),
            ("Bearer", _jwt(draw)),
            ("Basic", _basic(draw)),
            ("Token", draw.of(HEX, 40)),
            ("ApiKey", draw.mixed(URLSAFE, 40)),
        ]
    )
    place = draw.choice(
        [
            "> Authorization: {name} {secret}\n> X-Trace: {trace}",
            '"headers":{{"authorization":"{name} {secret}","x-trace":"{trace}"}}',
            "curl -H 'Authorization: {name} {secret}' https://api.shop.example/v1?trace={trace}",
            "{{'Authorization': '{name} {secret}', 'X-Trace': '{trace}'}}",
            "map[Authorization:[{name} {secret}] X-Trace:[{trace}]]",
            "proxy-authorization={name} {secret} trace={trace}",
        ]
    )
    return _placed(draw, "authorization header", place, secret, name=scheme)


def _sigv4(draw: Draw) -> Sample:
    signature = draw.of(HEX, 64)
    key = f"AKIA{draw.of(BASE32, 16)}"
    place = draw.choice(
        [
            f"Authorization: AWS4-HMAC-SHA256 Credential={key}/20241220/us-east-1/s3/aws4_request,"
            " SignedHeaders=host;x-amz-date, Signature={secret}\nX-Trace: {trace}",
            "GET https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + key + "%2F20241220"
            "&X-Amz-Date=20241220T091500Z&X-Amz-Signature={secret}&trace={trace}",
        ]
    )
    return _placed(draw, "aws signature", place, signature)


def _cookies(draw: Draw) -> Sample:
    secret = draw.mixed(draw.choice([ALNUM, HEX, URLSAFE]), draw.randint(24, 64))
    place = draw.choice(
        [
            "Cookie: theme=dark; session={secret}; lang=ko\nX-Trace: {trace}",
            "Set-Cookie: JSESSIONID={secret}; Path=/; HttpOnly\nX-Trace: {trace}",
            '"cookie":"_ga=GA1.2.3; sid={secret}","trace":"{trace}"',
            "GET /cart;jsessionid={secret} 200 trace={trace}",
            "PHPSESSID={secret} trace={trace}",
            "connect.sid=s%3A{secret} trace={trace}",
            "session_id={secret} user logged in trace={trace}",
            'request.cookies={{"sessionid": "{secret}"}} trace={trace}',
        ]
    )
    return _placed(draw, "cookie or session", place, secret)


def _aws_secrets(draw: Draw) -> Sample:
    secret = draw.mixed(BASE64, 40)
    key = f"AKIA{draw.of(BASE32, 16)}"
    place = draw.choice(
        [
            "AWS_SECRET_ACCESS_KEY={secret} trace={trace}",
            "aws_secret_access_key = {secret}\ntrace = {trace}",
            '{{"AccessKeyId":"' + key + '","SecretAccessKey":"{secret}","trace":"{trace}"}}',
            f"{key},{{secret}},{{trace}}",
            f"credentials {key} {{secret}} trace={{trace}}",
            f"AWS.Credentials({key}:{{secret}}) trace={{trace}}",
            "secretAccessKey: '{secret}', trace: '{trace}'",
            "aws secret key {secret} trace={trace}",
        ]
    )
    return _placed(draw, "aws secret access key", place.replace("{{secret}}", "{secret}"), secret)


def _aws_sessions(draw: Draw) -> Sample:
    secret = draw.choice(["FwoGZXIvYXdzE", "IQoJb3JpZ2luX2Vj"]) + draw.of(BASE64, 300) + "=="
    place = draw.choice(
        [
            'AWS_SESSION_TOKEN="{secret}" trace={trace}',
            '"SessionToken": "{secret}", "trace": "{trace}"',
            "x-amz-security-token: {secret}\nx-trace: {trace}",
            "sts answered {secret} trace={trace}",
        ]
    )
    return _placed(draw, "aws session token", place, secret)


def _azure(draw: Draw) -> Sample:
    key = draw.of(BASE64, 86) + "=="
    signature = quote(draw.of(BASE64, 43) + "=", safe="")
    place, secret = draw.choice(
        [
            (
                "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={secret};EndpointSuffix=c.net trace={trace}",
                key,
            ),
            (
                "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={secret} {trace}",
                key,
            ),
            ("https://shop.blob.core.windows.net/c/b?sv=2022-11-02&sr=b&sig={secret}&trace={trace}", signature),
            ("AccountEndpoint=https://shop.documents.azure.com:443/;AccountKey={secret}; trace={trace}", key),
            ("SharedAccessSignature sr=x&sig={secret}&se=1734686100&skn=Root trace={trace}", signature),
            ("Ocp-Apim-Subscription-Key: {secret}\nX-Trace: {trace}", draw.of(HEX, 32)),
        ]
    )
    return _placed(draw, "azure key or signature", place, secret)


def _service_accounts(draw: Draw) -> Sample:
    pem = _pem(draw).replace("\n", "\\n") + "\\n"
    text = (
        '{"type": "service_account", "project_id": "shop", "private_key_id": "' + draw.of(HEX, 40) + '",'
        ' "private_key": "' + pem + '", "client_id": "' + draw.of(string.digits, 21) + '"}'
    )
    return Sample("gcp service account", text, pem[40:-40], '"project_id": "shop"')


def _private_keys(draw: Draw) -> Sample:
    pem = _pem(draw)
    trace = draw.of(HEX, 32)
    whole = draw.choice(
        [
            f"loaded key:\n{pem}\ntrace={trace}",
            json.dumps({"key": pem, "trace": trace}),
            f'TLS_KEY="{pem}" trace={trace}',
        ]
    )
    body = pem.split("\n")[2]
    return Sample("private key", whole, body, trace)


def _cut_keys(draw: Draw) -> Sample:
    lines = _pem(draw).split("\n")
    cut = "\n".join(lines[: draw.randint(2, len(lines) - 2)])
    return Sample("private key, cut off", f"dump of the mount: {cut}", lines[1])


def _kubeconfigs(draw: Draw) -> Sample:
    secret = base64.b64encode(_pem(draw).encode()).decode()
    place = draw.choice(["client-key-data: {secret}\ntrace: {trace}", "mounted {secret} trace={trace}"])
    return _placed(draw, "private key in base64", place, secret)


def _key_lines(draw: Draw) -> Sample:
    line = draw.mixed(BASE64, 64)
    return Sample("private key, one of its lines", line, line)


def _webhooks(draw: Draw) -> Sample:
    slack = draw.of(ALNUM, 24)
    discord = draw.of(URLSAFE, 68)
    teams = draw.of(HEX, 32)
    place, secret = draw.choice(
        [
            (f"https://hooks.slack.com/services/T{draw.of(UPPER, 8)}/B{draw.of(UPPER, 10)}/{{secret}}", slack),
            (f"https://discord.com/api/webhooks/{draw.of(string.digits, 18)}/{{secret}}", discord),
            (
                f"https://shop.webhook.office.com/webhookb2/{draw.uuid()}@{draw.uuid()}/IncomingWebhook/{{secret}}/"
                + draw.uuid(),
                teams,
            ),
            ("https://api.telegram.org/bot123456789:{secret}/sendMessage", "AA" + draw.of(URLSAFE, 33)),
        ]
    )
    return _placed(draw, "webhook url", "POST " + place + " failed: 500 trace={trace}", secret)


def _urls(draw: Draw) -> Sample:
    password = draw.password()
    plain, encoded = password.replace("/", "x").replace("?", "y"), quote(password, safe="")
    place, secret = draw.choice(
        [
            ("postgres://app:{secret}@orders-db:5432/orders?sslmode=require trace={trace}", encoded),
            ("postgresql+psycopg://app:{secret}@10.0.3.7/orders trace={trace}", plain.replace("#", "z")),
            ("mysql://root:{secret}@db.shop.internal:3306/shop trace={trace}", encoded),
            ("mongodb+srv://app:{secret}@cluster0.ab1cd.mongodb.net/?retryWrites=true trace={trace}", encoded),
            ("redis://:{secret}@cache:6379/0 trace={trace}", encoded),
            ("amqps://app:{secret}@mq:5671/%2F trace={trace}", encoded),
            ("https://oauth2:{secret}@gitlab.example/shop/pay.git trace={trace}", encoded),
            ("jdbc:mysql://db:3306/shop?user=app&password={secret}&trace={trace}", encoded),
            ("jdbc:sqlserver://db;databaseName=shop;user=sa;password={secret};trace={trace};", encoded),
            ("Server=db;Database=shop;User Id=sa;Password={secret};Trace={trace}", encoded),
            ("jdbc:oracle:thin:app/{secret}@db:1521/shop trace={trace}", draw.mixed(ALNUM, 12)),
        ]
    )
    return _placed(draw, "password in a url", "cannot connect to " + place, secret)


def _statements(draw: Draw) -> Sample:
    secret = draw.password()
    place = draw.choice(
        [
            "ALTER USER app WITH PASSWORD '{secret}'; -- {trace}",
            "CREATE USER 'app'@'%' IDENTIFIED BY '{secret}' /* {trace} */",
            "GRANT ALL ON shop.* TO 'app'@'%' IDENTIFIED BY \"{secret}\" /* {trace} */",
            "UPDATE users SET password = '{secret}' WHERE trace = '{trace}'",
            "$ mysql -u root -p{secret} shop # {trace}",
            "$ PGPASSWORD={secret} psql -h db # {trace}",
            "$ sshpass -p {secret} ssh deploy # {trace}",
            "$ curl -u admin:{secret} https://grafana.shop.example/{trace}",
            "$ curl --user 'admin:{secret}' https://grafana.shop.example/{trace}",
            "redis AUTH {secret}\ntrace {trace}",
            "requirepass {secret}\ntrace {trace}",
        ]
    )
    return _placed(draw, "password in a command", place, secret)


def _datadog(draw: Draw) -> Sample:
    name, secret = draw.choice(
        [
            *((name, draw.of(HEX, 32)) for name in ("DD_API_KEY", "DD-API-KEY", "datadog.api_key")),
            *((name, draw.of(HEX, 40)) for name in ("DD_APP_KEY", "DD-APPLICATION-KEY")),
        ]
    )
    place = draw.choice(["{name}={secret} trace={trace}", "{name}: {secret}\nX-Trace: {trace}"])
    return _placed(draw, "datadog key", place, secret, name=name)


def _environments(draw: Draw) -> Sample:
    secret = draw.password()
    place = draw.choice(
        [
            '"environment":[{{"name":"{name}","value":"{secret}"}},{{"name":"TRACE","value":"{trace}"}}]',
            "- name: {name}\n  value: {secret}\n- name: TRACE\n  value: {trace}",
            '{{"Key": "{name}", "Value": "{secret}"}} {trace}',
            '{{"ParameterKey":"{name}","ParameterValue":"{secret}"}} {trace}',
            "docker run -e {name}={secret} -e TRACE={trace} shop/pay",
            '$env:{name} = "{secret}"; $env:TRACE = "{trace}"',
            'env {{ name: "{name}" value: "{secret}" }} trace {trace}',
            '<add key="{name}" value="{secret}" /> {trace}',
            "{name}: |\n    {secret}\ntrace: {trace}",
            "{name}: >-\n  {secret}\ntrace: {trace}",
            "{name}=b'{secret}' trace={trace}",
            "{name}=SecretStr('{secret}') trace={trace}",
            ':{name}=>"{secret}", :trace=>"{trace}"',
            '{{:{name} "{secret}" :trace "{trace}"}}',
        ]
    )
    return _placed(draw, "environment listing", place, secret, name=_secret_name(draw))


def _escaped(draw: Draw) -> Sample:
    secret = draw.mixed(ALNUM, 14)
    place = draw.choice(
        [
            "body=%7B%22{name}%22%3A%22{secret}%22%2C%22trace%22%3A%22{trace}%22%7D",
            "{{&quot;{name}&quot;:&quot;{secret}&quot;,&quot;trace&quot;:&quot;{trace}&quot;}}",
            "\\u0022{name}\\u0022:\\u0022{secret}\\u0022,\\u0022trace\\u0022:\\u0022{trace}\\u0022",
            '"{{\\\\\\"{name}\\\\\\":\\\\\\"{secret}\\\\\\",\\\\\\"trace\\\\\\":\\\\\\"{trace}\\\\\\"}}"',
            '{{"{name}":"a\\"{secret}","trace":"{trace}"}}',
            "line one\\n{name}={secret}\\ntrace={trace}",
            "form: {name}%3D{secret}%26trace%3D{trace}",
        ]
    )
    return _placed(draw, "escaped text", place, secret, name=_secret_name(draw))


def _header_pairs(draw: Draw) -> Sample:
    secret = draw.mixed(ALNUM, 32)
    place = draw.choice(
        [
            "[('Authorization', 'Bearer {secret}'), ('X-Trace', '{trace}')]",
            "[(b'authorization', b'Bearer {secret}'), (b'x-trace', b'{trace}')]",
            '["Authorization","Bearer {secret}","X-Trace","{trace}"]',
            "[('x-api-key', '{secret}'), ('x-trace', '{trace}')]",
            "[(b'cookie', b'session={secret}'), (b'x-trace', b'{trace}')]",
            '{{"key":"Authorization","value":"Bearer {secret}"}} {trace}',
            '{{"name":"X-Api-Key","value":"{secret}"}} {trace}',
            "authorization:bearer {secret} x-trace:{trace}",
            '{{"X-Api-Key":["{secret}"],"X-Trace":["{trace}"]}}',
            'authorization: "Bearer {secret}"\nx-trace: {trace}',
        ]
    )
    return _placed(draw, "header in a list", place, secret)


def _commands(draw: Draw) -> Sample:
    secret = draw.password().replace("$", "s")
    place = draw.choice(
        [
            "kubectl create secret generic db --from-literal=password={secret} # {trace}",
            "helm upgrade pay ./pay --set db.password={secret} # {trace}",
            "docker login -u shop -p {secret} registry.shop.example # {trace}",
            "az login --service-principal -u app --password {secret} --tenant {trace}",
            "redis-cli -h cache -a {secret} ping # {trace}",
            "ldapsearch -D cn=app -w {secret} # {trace}",
            "openssl rsa -passin pass:{secret} -in key.pem # {trace}",
            "machine git.shop.example login app password {secret}\n# {trace}",
            "aws configure set aws_secret_access_key {secret} # {trace}",
            "mongosh -u app -p {secret} shop # {trace}",
            "npm config set //registry.shop.example/:_authToken={secret} # {trace}",
            "wget --http-password={secret} https://x.example/{trace}",
            "snmpget -v3 -A {secret} # {trace}",
        ]
    )
    return _placed(draw, "secret in a command", place, secret)


def _untold(draw: Draw) -> Sample:
    """No name, no look of its own: a mask could only guess."""
    place, secret = draw.choice(
        [
            ("INSERT INTO users (email, password) VALUES ('{name}', '{secret}') -- {trace}", draw.password()),
            ("executing insert with parameters [42, '{secret}', true] {trace}", draw.password()),
            ("worker started with argument {secret} {trace}", draw.of(HEX, 32)),
            ("tried hunter and {secret}, neither worked {trace}", draw.password()),
        ]
    )
    return _placed(draw, "told by nothing", place, secret, name="a")


# --- personal data ------------------------------------------------------------------------------------------------

PERSONAL_PLACES = (
    "{at} INFO {service} order placed by {secret} trace_id={trace}",
    '{{"ts":"{at}","service":"{service}","contact":"{secret}","trace_id":"{trace}"}}',
    "SELECT * FROM users WHERE contact = '{secret}' -- {trace}",
    "{at} ERROR cannot notify <{secret}>: timeout after 3000ms [{trace}]",
    "User(id=42, contact={secret}, trace={trace})",
    "{at} 고객 {secret} 님의 결제 실패 추적 {trace}",
    "name,contact,trace\nkim,{secret},{trace}",
    "contact: {secret}\ntrace: {trace}",
)


def _email(draw: Draw) -> str:
    name = draw.choice(["kim", "minji.lee", "j.park+shop", "o'brien".replace("'", ""), "sre_team", "a"])
    host = draw.choice(["example.com", "mail.shop.co.kr", "naver.com", "uni-koeln.example.de", "x.io"])
    return f"{name}{draw.randint(1, 9999)}@{host}"


def luhn(digits: str) -> str:
    """The digits with their check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def _card(draw: Draw) -> str:
    prefix, length = draw.choice(
        [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("6011", 16), ("3530", 16)]
    )
    number = luhn(prefix + draw.of(string.digits, length - 1 - len(prefix)))
    separator = draw.choice(["", " ", "-"])
    if length == 15:
        return separator.join([number[:4], number[4:10], number[10:]])
    return separator.join(number[n : n + 4] for n in range(0, 16, 4))


def _iban(draw: Draw) -> str:
    country, body = draw.choice(
        [
            ("DE", draw.of(string.digits, 18)),
            ("GB", draw.of(string.ascii_uppercase, 4) + draw.of(string.digits, 14)),
            ("FR", draw.of(string.digits, 10) + draw.of(UPPER, 11) + draw.of(string.digits, 2)),
            ("NL", draw.of(string.ascii_uppercase, 4) + draw.of(string.digits, 10)),
        ]
    )
    rest = int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    number = f"{country}{98 - rest:02}{body}"
    return number if draw.random() < 0.5 else " ".join(number[n : n + 4] for n in range(0, len(number), 4))


def _birthday(draw: Draw) -> str:
    return f"{draw.randint(50, 99)}{draw.randint(1, 12):02}{draw.randint(1, 28):02}"


PERSONAL: Mapping[str, Maker] = {
    "email": _email,
    "email in a url": lambda d: _email(d).replace("@", "%40"),
    "phone, Korean mobile": lambda d: d.choice(["010-{}-{}", "010 {} {}", "010{}{}", "010.{}.{}"]).format(
        d.choice("23456789") + d.of(string.digits, 3), d.of(string.digits, 4)
    ),
    "phone, Korean landline": lambda d: (
        f"{d.choice(['02', '031', '051', '070'])}-{d.choice('2345678')}{d.of(string.digits, 3)}"
        f"-{d.of(string.digits, 4)}"
    ),
    "phone, international": lambda d: d.choice(
        [
            f"+82 10-{d.choice('23456789')}{d.of(string.digits, 3)}-{d.of(string.digits, 4)}",
            f"+8210{d.choice('23456789')}{d.of(string.digits, 7)}",
            f"+1 415-{d.choice('23456789')}{d.choice('2345678')}{d.choice('2345678')}-{d.of(string.digits, 4)}",
            f"+1 (212) {d.choice('23456789')}{d.choice('2345678')}{d.choice('2345678')}-{d.of(string.digits, 4)}",
            f"+49 1512 {d.choice('23456789')}{d.of(string.digits, 6)}",
            f"+44 7911 {d.choice('123456789')}{d.of(string.digits, 5)}",
            f"+33 6 12 {d.of(string.digits, 2)} {d.of(string.digits, 2)} {d.of(string.digits, 2)}",
            f"+81 90-{d.choice('123456789')}{d.of(string.digits, 3)}-{d.of(string.digits, 4)}",
        ]
    ),
    "phone, US": lambda d: d.choice(["({}) {}-{}", "{}-{}-{}", "{}.{}.{}"]).format(
        d.choice(["415", "212", "312", "206"]),
        d.choice("23456789") + d.choice("2345678") + d.choice("2345678"),
        d.of(string.digits, 4),
    ),
    "card number": _card,
    "resident registration number": lambda d: f"{_birthday(d)}-{d.choice('1234')}{d.of(string.digits, 6)}",
    "social security number": lambda d: f"{d.randint(100, 665)}-{d.randint(1, 99):02}-{d.randint(1, 9999):04}",
    "iban": _iban,
}


# --- what only looks like it --------------------------------------------------------------------------------------


def _epoch(draw: Draw) -> str:
    seconds = draw.randint(1_640_000_000, 1_790_000_000)
    return str(draw.choice([seconds, seconds * 1_000 + draw.randrange(1_000), seconds * 10**6, seconds * 10**9]))


PROSE = """
token expired
password reset failed for user 42
secret rotation completed in 3.2s
invalid api key
Bearer token missing
Basic auth required
token: expired
authorization: required
authentication failed: bad credentials
password is required
password must be at least 12 characters
credentials not found
Secret db-credentials not found in namespace payments
session timeout=30m
access token refresh took 412ms
Authorization failed for checkout-service
cookie consent accepted
the secret payment-credentials was not mounted
password authentication failed for user "app"
no API key was provided
Token endpoint https://auth.shop.example/oauth2/token answered 503
unexpected token '<' in JSON at position 0
tokens per minute: 30000
token bucket empty, waiting 250ms
Please pass 2 arguments
auth service is down
key not found: user:42
passed: 12, failed: 0
ExpiredToken: The security token included in the request is expired
InvalidClientTokenId: The security token included in the request is invalid
com.shop.TokenExpiredException: Token has expired
Error: secret "payment-db" not found
kubernetes.io/service-account-token volume kube-api-access-x2x4q
grant_type=refresh_token
error="invalid_token" error_description="The access token expired"
GET /reset-password?lang=ko 200
Merge pull request #123 from shop/token-refresh
auth_tokens_issued_total 12345
Password: (hidden)
token_refresh_seconds_bucket{le="0.5"} 12
redis key session:42:cart evicted
read id_rsa.pub
Authorization header missing
response_type=code
secrets-store.csi.k8s.io mounted 3 secrets
java.lang.SecurityException: Password check failed
Password Manager service restarted 3 times
the token is no longer valid
secret is not set
Basic authentication succeeded for 42 users
비밀번호 오류 3회
토큰이 만료되었습니다
인증 실패: 세션 만료
""".strip().splitlines()
SETTINGS = """
max_tokens={n}
prompt_tokens: {n}
"completion_tokens":{n}
token_type=Bearer
token_count={n}
password_policy=strict
password=null
password=""
password=********
password=<redacted>
"secret":"***"
token=[REDACTED]
secretName: db-credentials
api_key=${DATADOG_API_KEY}
password: {{ .Values.db.password }}
token_ttl={n}s
token_expires_in={n}
auth=true
auth_method=oauth2
authenticated=true
author=kim
primary_key={n}
cache_key=user:{n}:cart
partition_key=orders-{n}
routing_key=orders.created
sort_key=ORDER#{n}
passed=true
bypass=on count={n}
compass=north
session_count={n}
sessions={n}
tokenizer=bpe
credential_type=static
password_changed_at=2024-12-20
secret_version={n}
token_url=/oauth2/token
keyspace=shop
monkey={n}
password=None
token=undefined
secret_ref=vault:db
use_password=false
""".strip().splitlines()


def _prose(draw: Draw) -> str:
    return draw.choice(PROSE)


def _settings(draw: Draw) -> str:
    return draw.choice(SETTINGS).replace("{n}", str(draw.randint(1, 99_999)))


ORDINARY: Mapping[str, Maker] = {
    "uuid": lambda d: f"request_id={d.uuid()}",
    "trace and span ids": lambda d: f"trace_id={d.of(HEX, 32)} span_id={d.of(HEX, 16)}",
    "datadog decimal ids": lambda d: (
        f"dd.trace_id={d.randint(10**18, 9 * 10**18)} dd.span_id={d.randint(10**18, 9 * 10**18)}"
    ),
    "datadog decimal ids in json": lambda d: (
        f'{{"dd":{{"trace_id":"{d.randint(10**18, 9 * 10**18)}","span_id":"{d.randint(10**18, 9 * 10**18)}"}}}}'
    ),
    "git sha": lambda d: d.choice(["deployed {}{}", "commit {:.7} by CI", "v2.14.0-{1}"]).format(
        d.of(HEX, 32), d.of(HEX, 8)
    ),
    "sha256 digest": lambda d: d.choice(["shop/pay@sha256:{}", "digest={}", "sha256:{}"]).format(d.of(HEX, 64)),
    "arn": lambda d: d.choice(
        [
            f"arn:aws:ecs:eu-west-1:{d.of(string.digits, 12)}:task/shop/{d.of(HEX, 32)}",
            f"arn:aws:secretsmanager:eu-west-1:{d.of(string.digits, 12)}:secret:db-password-{d.of(ALNUM, 6)}",
            f"arn:aws:elasticloadbalancing:eu-west-1:{d.of(string.digits, 12)}:loadbalancer/app/shop/{d.of(HEX, 16)}",
        ]
    ),
    "timestamp": lambda d: d.choice(
        ["2024-12-20T09:15:{:02}.{:03}Z", "2024-12-20 09:15:{:02},{:03}", "20/Dec/2024:09:15:{:02} +0900 {}"]
    ).format(d.randrange(60), d.randrange(1000)),
    "epoch": lambda d: f"at={_epoch(d)} next={_epoch(d)}",
    "order number": lambda d: d.choice(
        [
            f"order 2024-{d.randint(10**7, 10**8 - 1)} shipped",
            f"order_id={d.randint(10**15, 10**16 - 1)}",
            f"ORD-{d.randint(10**9, 10**10 - 1)}",
            f"invoice 20241220-{d.randint(1000, 9999)}-{d.randint(10, 99)}",
            f"offset={d.randint(10**9, 10**12)} partition=3",
        ]
    ),
    "version": lambda d: f"cart v{d.randint(1, 9)}.{d.randint(0, 99)}.{d.randint(0, 9)} lodash@4.17.{d.randint(1, 30)}",
    "pod name": lambda d: f"payment-service-{d.of(HEX, 10)}-{d.of('bcdfghjklmnpqrstvwxz2456789', 5)} OOMKilled",
    "host name": lambda d: f"ip-10-0-{d.randint(0, 255)}-{d.randint(0, 255)}.ec2.internal i-0{d.of(HEX, 16)}",
    "address": lambda d: f"10.0.{d.randint(0, 255)}.{d.randint(0, 255)}:5432 refused; fe80::1 up",
    "price": lambda d: (
        f"total ₩{d.randint(1, 999)},{d.randint(100, 999)},000 (${d.randint(1, 9999)}.99), {d.random():.6f}"
    ),
    "duration and counts": lambda d: (
        f"took {d.randint(1, 99999)}ms, 1,284 errors, p99 {d.random() * 1000:.3f} ms, {d.randint(0, 10**9)} bytes"
    ),
    "stack trace": lambda d: (
        f"\tat com.shop.token.TokenService.refresh(TokenService.java:{d.randint(1, 900)}) ~[app.jar:2.1.0]\n"
        f"com.shop.Foo@{d.of(HEX, 8)} lambda$0"
    ),
    "package": lambda d: f"@shop/ui@1.{d.randint(0, 99)}.0 icon@2x.png git@github.com:shop/pay.git ssh deploy@bastion",
    "aws request id": lambda d: f"RequestId: {d.uuid()} Root=1-{d.of(HEX, 8)}-{d.of(HEX, 24)}",
    "etag and md5": lambda d: f'ETag: "{d.of(HEX, 32)}" md5 {d.of(HEX, 32)}',
    "snowflake": lambda d: f"message {d.randint(10**17, 10**18)} user_id={d.randint(10**6, 10**8)}",
    "sql": lambda d: f"SELECT token_id, password_hash FROM users WHERE id = {d.randint(1, 10**6)} LIMIT 10",
    "url": lambda d: f"GET https://shop.example.com:8443/cart/{d.randint(1, 10**6)}?page=2&sort=key&lang=ko 500",
    "metric": lambda d: f'requests_total{{service="cart",code="500"}} {d.randint(1, 10**6)} pool={d.randint(1, 50)}',
    "kafka": lambda d: f"orders-{d.randint(0, 9)}@{d.randint(10**5, 10**9)} lag={d.randint(1, 10**6)} key=null",
    "coordinates and dates": lambda d: (
        f"at 37.{d.of(string.digits, 6)},126.{d.of(string.digits, 6)} on 2024-12-{d.randint(10, 28)}"
    ),
    "kubernetes event": lambda d: (
        f'Back-off pulling "registry.shop.io/pay:{d.of(HEX, 7)}" for pod pay-{d.randint(0, 9)}'
    ),
    "certificate": lambda d: "-----BEGIN CERTIFICATE-----\n" + d.of(BASE64, 64) + "\n-----END CERTIFICATE-----",
    "public ssh key": lambda d: f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{d.of(BASE64, 43)} deploy",
    "thread and class": lambda d: f"[http-nio-8080-exec-{d.randint(1, 99)}] o.s.s.AuthManager@{d.of(HEX, 7)}: retry 2",
    "prose about secrets": _prose,
    "setting named like a secret": _settings,
}

CREDENTIALS: Mapping[str, Callable[[Draw], Sample]] = {
    "key=value": _key_values,
    "query string": _query_strings,
    "secret in a sentence": _sentences,
    "authorization header": _headers,
    "aws signature": _sigv4,
    "cookie or session": _cookies,
    "aws secret access key": _aws_secrets,
    "aws session token": _aws_sessions,
    "azure key or signature": _azure,
    "gcp service account": _service_accounts,
    "private key": _private_keys,
    "private key, cut off": _cut_keys,
    "private key, one of its lines": _key_lines,
    "private key in base64": _kubeconfigs,
    "webhook url": _webhooks,
    "password in a url": _urls,
    "password in a command": _statements,
    "datadog key": _datadog,
    "environment listing": _environments,
    "escaped text": _escaped,
    "header in a list": _header_pairs,
    "secret in a command": _commands,
}
"""Told by what stands around them."""


def credentials(seed: int, each: int) -> Iterator[Sample]:
    """``each`` of every vendor's token, and four times as many of every kind that is told by its context."""
    draw = Draw(seed)
    for kind, make in TOKENS.items():
        for _ in range(each):
            yield _placed(draw, kind, draw.choice(TOKEN_PLACES), make(draw))
    for sample in CREDENTIALS.values():
        for _ in range(4 * each):
            yield sample(draw)


def untold(seed: int, each: int) -> Iterator[Sample]:
    """Secrets that nothing tells from other words: how many of them stay."""
    draw = Draw(seed)
    for _ in range(each):
        yield _untold(draw)


def personal_data(seed: int, each: int) -> Iterator[Sample]:
    """``each`` of every kind."""
    draw = Draw(seed)
    for kind, make in PERSONAL.items():
        for _ in range(each):
            yield _placed(draw, kind, draw.choice(PERSONAL_PLACES), make(draw))


def ordinary(seed: int, each: int) -> Iterator[Sample]:
    """``each`` of every kind; nothing in them is to be masked."""
    draw = Draw(seed)
    for kind, make in ORDINARY.items():
        for _ in range(each):
            place = draw.choice(
                [
                    "{at} INFO {service} {secret}",
                    '{{"ts":"{at}","msg":{quoted}}}',
                    "{secret}",
                    "{at} 경고 {secret} 확인",
                ]
            )
            text = make(draw)
            yield Sample(kind, place.format(at=_at(draw), service="cart", secret=text, quoted=json.dumps(text)))


def log_lines(seed: int, count: int) -> Iterator[str]:
    """What most of a log is: nothing to mask in it."""
    draw = Draw(seed)
    for _ in range(count):
        yield (
            f"{_at(draw)} INFO [{draw.choice(SERVICES)},{draw.of(HEX, 32)},{draw.of(HEX, 16)}] c.s.p.PaymentController"
            f" - handled POST /v1/payments/{draw.randint(1, 10**7)} status=200 took={draw.randint(1, 900)}ms"
            f" pool=active:{draw.randint(1, 50)},idle:{draw.randint(0, 9)} region=eu-west-1"
        )


def _at(draw: Draw) -> str:
    return f"2024-12-20T09:{draw.randrange(60):02}:{draw.randrange(60):02}.{draw.randrange(1000):03}Z"


def _placed(draw: Draw, kind: str, place: str, secret: str, name: str = "") -> Sample:
    trace = draw.of(HEX, 32)
    text = place.format(at=_at(draw), service=draw.choice(SERVICES), secret=secret, trace=trace, name=name)
    return Sample(kind, text, secret, trace)
