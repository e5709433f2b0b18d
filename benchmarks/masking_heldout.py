"""A second masking corpus, written from the vendors' documented formats and without sight of the masker's patterns.

Every value is random and put together at run time; nothing here is a real credential or a real person. A sample names
the texts that must not survive (``hidden``) and how long a surviving piece of one counts as a leak (``piece``).
"""

import base64
import json
import random
import string
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

SEED = 20260301
PER_KIND = 14
PER_HARMLESS_KIND = 26

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
ALNUM = string.ascii_letters + DIGITS
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
HEX = DIGITS + "abcdef"
BASE32 = UPPER + "234567"

Maker = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Sample:
    group: str
    kind: str
    text: str
    hidden: tuple[str, ...]
    piece: int

    def leaked(self, masked: str) -> bool:
        return any(_survives(secret, masked, self.piece) for secret in self.hidden)


def _survives(secret: str, masked: str, piece: int) -> bool:
    size = min(piece, len(secret))
    return any(secret[start : start + size] in masked for start in range(len(secret) - size + 1))


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    name: str
    make: Maker
    surroundings: Sequence[str]
    piece: int = 12
    names: Sequence[str] = ()


def run(alphabet: str, size: int, before: str = "", after: str = "") -> Maker:
    return lambda rng: before + "".join(rng.choices(alphabet, k=size)) + after


def joined(*makers: Maker) -> Maker:
    return lambda rng: "".join(make(rng) for make in makers)


def text(value: str) -> Maker:
    return lambda _: value


def uuid(rng: random.Random) -> str:
    return "-".join(run(HEX, size)(rng) for size in (8, 4, 4, 4, 12))


def encoded(raw: str) -> str:
    return base64.b64encode(raw.encode()).decode()


def encoded_url(raw: str) -> str:
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def jwt(rng: random.Random) -> str:
    head = encoded_url(json.dumps({"alg": "RS256", "typ": "JWT", "kid": run(HEX, 8)(rng)}))
    body = encoded_url(json.dumps({"sub": run(DIGITS, 10)(rng), "iat": rng.randint(10**9, 2 * 10**9)}))
    return f"{head}.{body}.{run(URLSAFE, 86)(rng)}"


def password(rng: random.Random) -> str:
    """Mixed case, digits and a sign or two; nothing that a URL or a shell word would have to escape."""
    word = run(LOWER, rng.randint(4, 7))(rng).capitalize()
    return word + rng.choice("._-~*!") + run(ALNUM, rng.randint(4, 8))(rng) + rng.choice(("", "!", "7", "_x"))


def signed_password(rng: random.Random) -> str:
    """With the signs people choose; only for quoted places."""
    return run(LOWER, 4)(rng).capitalize() + rng.choice("@#$%^&*+") + run(ALNUM, 5)(rng) + rng.choice("!?$@")


def plain_password(rng: random.Random) -> str:
    words = ("winter", "sunset", "dragon", "coffee", "harbor", "purple", "monkey", "castle", "orange", "silver")
    return rng.choice(words) + rng.choice(words) + str(rng.randint(10, 9999))


SELF_EVIDENT = (
    "2026-03-01T10:22:41Z ERROR upstream rejected credential <S> (401)",
    '{"level":"warn","msg":"auth failed","headers":{"x-token":"<S>"},"status":401}',
    "> authorization: Bearer <S>",
    "Error: request failed with config {'api_base': 'https://<H>', 'key': '<S>'}",
    'level=info msg="starting" api_token=<S> region=eu-west-1',
    '"GET /v1/items?access_token=<Q>&page=2 HTTP/1.1" 401 88',
    "ValueError: invalid literal: '<S>'",
    "+ curl -sS -H 'Authorization: token <S>' https://<H>/v1/me",
    "env: [PATH=/usr/bin HOME=/root CI_JOB=<N> SVC_CRED=<S>]",
    "config loaded: &{Endpoint:https://<H> Creds:<S> Timeout:30s}",
    "Settings(url=https://<H>, auth=<S>, retries=3)",
    "<S> is not authorised to call this endpoint",
    'remote: invalid username or token ("<S>")',
    'plugin:\n  cred: "<S>"\n  retries: 3',
    "thread 'main' panicked at 'called unwrap on Err(Denied { with: \"<S>\" })'",
    '{"log":"{\\"cred\\":\\"<S>\\"}\\n","stream":"stderr"}',
    "https://<H>/callback#t=<S>",
    "the key we deployed yesterday was <S>.",
    "argv=[/app/run,--cred,<S>,--verbose]",
    "sent <N> bytes;auth:<S>;took 12ms",
)

NAMED = (
    "<NAME>=<S>",
    'export <NAME>="<S>"',
    '{"<name>": "<S>", "region": "eu"}',
    "{'PATH': '/usr/bin', '<NAME>': '<S>', 'LANG': 'C'}",
    "settings:\n  <name>: <S>\n  retries: 3",
    "        - name: <NAME>\n          value: <S>\n        - name: LOG_LEVEL\n          value: info",
    '"environment":[{"name":"LANG","value":"C"},{"name":"<NAME>","value":"<S>"}]',
    "ClientConfig{endpoint=https://<H>, <camel>=<S>, retries=3}",
    "loaded config {Endpoint:https://<H> <Camel>:<S> Timeout:30s}",
    '  + <name> = "<S>"',
    "exec: /usr/bin/agent --<kebab>=<S> --verbose",
    "exec: /usr/bin/agent --<kebab> <S> --verbose",
    "docker run -d -e <NAME>=<S> -p 80:80 <H>/app",
    "Step 7/9 : ENV <NAME> <S>",
    '{"log":"{\\"<name>\\":\\"<S>\\"}\\n","stream":"stdout"}',
    '"GET /v1/q?<name>=<Q>&page=2 HTTP/1.1" 200 12',
    "variables: {'input': {'<camel>': '<S>', 'id': <N>}}",
    "<kebab>: <S>",
    "[agent]\n<name> = <S>\nsite = eu",
    "-D<kebab_dots>=<S>",
)

VENDORS = "vendors' tokens with a prefix"
NAMELESS = "vendors' keys without a prefix, named"
CLOUD = "cloud credentials"
DATABASES = "connection strings"
HEADERS = "headers, cookies and query strings"
DUMPS = "passwords in dumps and files"
COMMANDS = "command lines, CI and messaging"
KEYS = "keys and certificates"
WEBHOOKS = "webhook addresses"
KOREAN = "Korean log lines"
PERSONAL = "personal data"


def vendor(name: str, make: Maker) -> Kind:
    return Kind(VENDORS, name, make, SELF_EVIDENT)


def nameless(name: str, make: Maker, *names: str) -> Kind:
    return Kind(NAMELESS, name, make, NAMED, names=names)


VENDOR_KINDS = (
    vendor("OpenAI project key", joined(run(URLSAFE, 74, "sk-proj-"), run(URLSAFE, 74, "T3BlbkFJ"))),
    vendor("OpenAI service account key", joined(run(URLSAFE, 58, "sk-svcacct-"), run(URLSAFE, 58, "T3BlbkFJ"))),
    vendor("OpenAI older key", joined(run(ALNUM, 20, "sk-"), run(ALNUM, 20, "T3BlbkFJ"))),
    vendor("Anthropic key", run(URLSAFE, 93, "sk-ant-api03-", "AA")),
    vendor("Anthropic admin key", run(URLSAFE, 93, "sk-ant-admin01-", "AA")),
    vendor("Hugging Face token", run(ALNUM, 34, "hf_")),
    vendor("Groq key", run(ALNUM, 52, "gsk_")),
    vendor("xAI key", run(ALNUM, 80, "xai-")),
    vendor("Perplexity key", run(ALNUM, 48, "pplx-")),
    vendor("OpenRouter key", run(HEX, 64, "sk-or-v1-")),
    vendor("Replicate token", run(ALNUM, 37, "r8_")),
    vendor("LangSmith key", joined(run(HEX, 32, "lsv2_pt_"), run(HEX, 10, "_"))),
    vendor("GitHub classic token", run(ALNUM, 36, "ghp_")),
    vendor("GitHub fine-grained token", joined(run(ALNUM, 22, "github_pat_"), run(ALNUM, 59, "_"))),
    vendor(
        "GitHub app and refresh tokens", lambda rng: run(ALNUM, 36, rng.choice(("gho_", "ghu_", "ghs_", "ghr_")))(rng)
    ),
    vendor("GitLab personal token", run(URLSAFE, 20, "glpat-")),
    vendor("GitLab routable token", joined(run(URLSAFE, 27, "glpat-"), run(DIGITS + LOWER, 2, ".01."), run(HEX, 7))),
    vendor(
        "GitLab deploy, runner, CI and trigger tokens",
        lambda rng: run(URLSAFE, 20, rng.choice(("gldt-", "glrt-", "glcbt-64_", "glptt-", "glagent-", "glsoat-")))(rng),
    ),
    vendor("Slack bot token", joined(run(DIGITS, 12, "xoxb-"), run(DIGITS, 13, "-"), run(ALNUM, 24, "-"))),
    vendor("Slack user token", joined(run(DIGITS, 12, "xoxp-"), run(DIGITS, 12, "-"), run(HEX, 32, "-"))),
    vendor("Slack app token", joined(run(UPPER + DIGITS, 10, "xapp-1-A"), run(DIGITS, 13, "-"), run(HEX, 64, "-"))),
    vendor("Slack refresh and cookie tokens", lambda rng: rng.choice(("xoxe-1-", "xoxd-")) + run(ALNUM, 146)(rng)),
    vendor("Stripe secret key", lambda rng: rng.choice(("sk_live_", "sk_test_", "rk_live_")) + run(ALNUM, 99)(rng)),
    vendor("Stripe short secret key", lambda rng: rng.choice(("sk_live_", "sk_test_")) + run(ALNUM, 24)(rng)),
    vendor("Stripe webhook secret", run(ALNUM, 32, "whsec_")),
    vendor("SendGrid key", joined(run(URLSAFE, 22, "SG."), run(URLSAFE, 43, "."))),
    vendor("Mailgun key", run(HEX, 32, "key-")),
    vendor("Mailchimp key", run(HEX, 32, "", "-us14")),
    vendor("Brevo key", joined(run(HEX, 64, "xkeysib-"), run(ALNUM, 16, "-"))),
    vendor("Postmark-like Resend key", run(ALNUM, 32, "re_")),
    vendor("Twilio key id", run(HEX, 32, "SK")),
    vendor("DigitalOcean token", lambda rng: rng.choice(("dop_v1_", "doo_v1_", "dor_v1_")) + run(HEX, 64)(rng)),
    vendor("HashiCorp Vault token", lambda rng: rng.choice(("hvs.", "hvb.", "hvr.")) + run(URLSAFE, 92)(rng)),
    vendor("Terraform Cloud token", joined(run(ALNUM, 14), run(ALNUM, 67, ".atlasv1."))),
    vendor("Databricks token", run(HEX, 32, "dapi")),
    vendor("Doppler token", lambda rng: rng.choice(("dp.pt.", "dp.st.prd.", "dp.ct.")) + run(ALNUM, 43)(rng)),
    vendor("Linear key", run(ALNUM, 40, "lin_api_")),
    vendor("Notion token", lambda rng: rng.choice(("ntn_", "secret_")) + run(ALNUM, 46)(rng)),
    vendor("Shopify token", lambda rng: rng.choice(("shpat_", "shpca_", "shppa_", "shpss_")) + run(HEX, 32)(rng)),
    vendor("Square token", lambda rng: rng.choice(("EAAA", "sq0atp-", "sq0csp-")) + run(URLSAFE, 60)(rng)),
    vendor("Postman key", joined(run(HEX, 24, "PMAK-"), run(HEX, 34, "-"))),
    vendor("Grafana service account token", joined(run(ALNUM, 32, "glsa_"), run(HEX, 8, "_"))),
    vendor("Grafana cloud token", lambda rng: "glc_" + encoded(json.dumps({"o": "1", "k": run(ALNUM, 40)(rng)}))),
    vendor("JFrog key", lambda rng: rng.choice(("AKCp8", "AKCp5")) + run(ALNUM, 68)(rng)),
    vendor(
        "JFrog reference token", lambda rng: encoded("reftkn:01:" + run(DIGITS, 10)(rng) + ":" + run(ALNUM, 28)(rng))
    ),
    vendor("Supabase key", lambda rng: rng.choice(("sbp_", "sb_secret_")) + run(HEX, 40)(rng)),
    vendor("PlanetScale password", lambda rng: rng.choice(("pscale_pw_", "pscale_tkn_")) + run(URLSAFE, 43)(rng)),
    vendor("npm token", run(ALNUM, 36, "npm_")),
    vendor("PyPI token", run(URLSAFE, 150, "pypi-AgEIcHlwaS5vcmc")),
    vendor("RubyGems key", run(HEX, 48, "rubygems_")),
    vendor("crates.io token", run(ALNUM, 32, "cio")),
    vendor("Docker Hub token", lambda rng: rng.choice(("dckr_pat_", "dckr_oat_")) + run(URLSAFE, 27)(rng)),
    vendor("Atlassian token", joined(run(URLSAFE, 180, "ATATT3xFfGF0"), run(HEX.upper(), 8, "="))),
    vendor("Bitbucket app password", run(ALNUM, 32, "ATBB")),
    vendor("New Relic keys", lambda rng: rng.choice(("NRAK-", "NRII-", "NRJS-")) + run(UPPER + DIGITS, 27)(rng)),
    vendor("New Relic licence key", run(HEX, 36, "", "NRAL")),
    vendor("Sentry tokens", lambda rng: rng.choice(("sntryu_", "sntrys_eyJpYXQiOjE3")) + run(HEX, 64)(rng)),
    vendor("Dynatrace token", joined(run(BASE32, 24, "dt0c01."), run(BASE32, 64, "."))),
    vendor("Honeycomb key", run(LOWER + DIGITS, 58, "hcaik_")),
    vendor("Fly.io token", run(BASE64, 120, "FlyV1 fm2_")),
    vendor("Netlify token", run(ALNUM, 36, "nfp_")),
    vendor("Vercel token", run(ALNUM, 24, "vcp_")),
    vendor("Pulumi token", run(HEX, 40, "pul-")),
    vendor("Tailscale key", joined(run(ALNUM, 12, "tskey-auth-"), run(ALNUM, 32, "-"))),
    vendor("1Password service token", run(URLSAFE, 250, "ops_eyJ")),
    vendor("age secret key", run(UPPER + DIGITS, 58, "AGE-SECRET-KEY-1")),
    vendor("Figma token", run(URLSAFE, 40, "figd_")),
    vendor("Airtable token", joined(run(ALNUM, 14, "pat"), run(HEX, 64, "."))),
    vendor("Asana token", joined(run(DIGITS, 16, "2/"), run(DIGITS, 16, "/"), run(HEX, 32, ":"))),
    vendor("Azure DevOps token", joined(run(ALNUM, 76), text("AZDO"), run(ALNUM, 4))),
    vendor("Google OAuth access token", run(URLSAFE, 160, "ya29.a0Af")),
    vendor("Google API key", run(URLSAFE, 35, "AIza")),
    vendor("Google OAuth client secret", run(URLSAFE, 28, "GOCSPX-")),
    vendor("Google refresh token", run(URLSAFE, 90, "1//0")),
    vendor("Facebook token", run(ALNUM, 160, "EAAB")),
    vendor("Telegram bot token", joined(run(DIGITS, 10), run(URLSAFE, 33, ":AA"))),
    vendor("Discord bot token", joined(run(ALNUM, 23, "MT"), run(ALNUM, 6, "."), run(URLSAFE, 38, "."))),
    vendor("JSON web token", jwt),
    vendor("Buildkite token", run(HEX, 40, "bkua_")),
    vendor("Sourcegraph token", joined(run(HEX, 16, "sgp_"), run(HEX, 40, "_"))),
    vendor("Infracost and Prefect keys", lambda rng: rng.choice(("ico-", "pnu_")) + run(ALNUM, 36)(rng)),
    vendor("Contentful token", run(URLSAFE, 43, "CFPAT-")),
)

NAMELESS_KINDS = (
    nameless("Datadog keys", run(HEX, 32), "DD_API_KEY", "DATADOG_API_KEY"),
    nameless("Datadog application key", run(HEX, 40), "DD_APP_KEY", "DD_APPLICATION_KEY"),
    nameless("PagerDuty key", run(URLSAFE, 20), "PAGERDUTY_TOKEN", "PD_ROUTING_KEY", "PAGERDUTY_INTEGRATION_KEY"),
    nameless("Twilio auth token", run(HEX, 32), "TWILIO_AUTH_TOKEN"),
    nameless("Heroku key", uuid, "HEROKU_API_KEY"),
    nameless("Cloudflare token", run(URLSAFE, 40), "CLOUDFLARE_API_TOKEN", "CF_API_KEY"),
    nameless("Okta token", run(URLSAFE, 40, "00"), "OKTA_API_TOKEN", "OKTA_CLIENT_TOKEN"),
    nameless("Auth0 client secret", run(URLSAFE, 64), "AUTH0_CLIENT_SECRET"),
    nameless("Azure client secret", joined(run(ALNUM, 3), text("8Q~"), run(URLSAFE + "~.", 34)), "AZURE_CLIENT_SECRET"),
    nameless("Opsgenie key", uuid, "OPSGENIE_API_KEY", "GENIE_KEY"),
    nameless("AWS secret key", run(BASE64, 40), "AWS_SECRET_ACCESS_KEY", "SECRET_KEY"),
    nameless("AWS session token", run(BASE64, 300, "IQoJb3JpZ2luX2Vj"), "AWS_SESSION_TOKEN", "SESSION_TOKEN"),
    nameless("Django secret key", run(ALNUM + "-_*", 50), "DJANGO_SECRET_KEY", "SECRET_KEY"),
    nameless("Rails master key", run(HEX, 32), "RAILS_MASTER_KEY", "SECRET_KEY_BASE"),
    nameless("encryption key", run(BASE64, 43, "", "="), "ENCRYPTION_KEY", "FERNET_KEY", "JWT_SIGNING_KEY"),
    nameless("OAuth refresh token", run(URLSAFE, 64), "REFRESH_TOKEN", "OAUTH_REFRESH_TOKEN"),
    nameless("database password", password, "DB_PASSWORD", "POSTGRES_PASSWORD", "MYSQL_ROOT_PASSWORD", "PGPASSWORD"),
    nameless("short-named password", password, "DB_PASS", "SMTP_PASS", "REDIS_PASSWD", "LDAP_PWD", "DB_PW"),
    nameless("passphrase", password, "KEY_PASSPHRASE", "SSL_KEYSTORE_PASSWORD", "GPG_PASSPHRASE"),
    nameless("webhook signing secret", run(ALNUM, 32), "SLACK_SIGNING_SECRET", "WEBHOOK_SECRET", "HMAC_SECRET"),
    nameless("consumer secret", run(ALNUM, 50), "TWITTER_CONSUMER_SECRET", "OAUTH_CONSUMER_SECRET"),
    nameless("plain-word password", plain_password, "ADMIN_PASSWORD", "ROOT_PASSWORD", "USER_PASSWORD"),
    nameless("private key in one line", run(BASE64, 120, "MIIEvQ"), "PRIVATE_KEY", "APP_PRIVATE_KEY"),
    nameless("TOTP secret", run(BASE32, 32), "TOTP_SECRET", "OTP_SECRET", "MFA_SECRET"),
)


def surrounded(group: str, name: str, make: Maker, *surroundings: str, piece: int = 12) -> Kind:
    return Kind(group, name, make, surroundings, piece)


AKIA: Maker = lambda rng: rng.choice(("AKIA", "ASIA")) + run(BASE32, 16)(rng)  # noqa: E731

CLOUD_KINDS = (
    surrounded(
        CLOUD, "AWS access key id", AKIA,
        "aws_access_key_id = <S>", "AWS_ACCESS_KEY_ID=<S>", "boto error: The AWS Access Key Id <S> does not exist",
        '<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId><S></AWSAccessKeyId></Error>',
        '{"accessKeyId":"<S>","userName":"ci"}', "Credential=<S>/20260301/us-east-1/s3/aws4_request",
    ),
    surrounded(
        CLOUD, "AWS secret key in files and errors", run(BASE64, 40),
        "[default]\naws_access_key_id = <AKIA>\naws_secret_access_key = <S>\nregion = eu-west-1",
        '{"AccessKeyId":"<AKIA>","SecretAccessKey":"<S>","SessionToken":"x"}',
        "Credentials(access_key='<AKIA>', secret_key='<S>', token=None)",
        "AWSCredentials{accessKeyId=<AKIA>, secretAccessKey=<S>}",
        "aws configure set aws_secret_access_key <S>",
        "  accesskey: <AKIA>\n  secretkey: <S>",
        "{AccessKeyID:<AKIA> SecretAccessKey:<S> SessionToken: ProviderName:Env}",
        "<AKIA>,<S>",
        "s3 client <AKIA>:<S> created",
    ),
    surrounded(
        CLOUD, "STS session token", run(BASE64, 320, "FwoGZXIvYXdzE"),
        '{"Credentials":{"AccessKeyId":"<AKIA>","SessionToken":"<S>","Expiration":"2026-03-01T11:00:00Z"}}',
        "<SessionToken><S></SessionToken>", "x-amz-security-token: <S>", "aws_session_token = <S>",
        "GET /?X-Amz-Security-Token=<Q>&X-Amz-Date=20260301T000000Z HTTP/1.1",
        "{AccessKeyID:<AKIA> SessionToken:<S> ProviderName:Sts}",
    ),
    surrounded(
        CLOUD, "AWS presigned address signature", run(HEX, 64),
        "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=900&X-Amz-Signature=<S>",
        '"GET /b/k?X-Amz-Date=20260301T000000Z&X-Amz-Signature=<S>&x-id=GetObject HTTP/1.1" 403',
        "Authorization: AWS4-HMAC-SHA256 Credential=<AKIA>/20260301/eu/s3/aws4_request, "
        "SignedHeaders=host, Signature=<S>",
        '{"url":"https://b.s3.amazonaws.com/k?X-Amz-Expires=9\\u0026X-Amz-Signature=<S>"}',
        "url=https%3A%2F%2Fb.s3.amazonaws.com%2Fk%3FX-Amz-Signature%3D<S>%26x-id%3DGet",
    ),
    surrounded(
        CLOUD, "CloudFront and GCS signed addresses", run(ALNUM + "-~", 170),
        "https://d1.cloudfront.net/a?Expires=1767225600&Signature=<S>&Key-Pair-Id=K1",
        "https://storage.googleapis.com/b/o?GoogleAccessId=x&Expires=1767225600&Signature=<S>",
        "https://storage.googleapis.com/b/o?X-Goog-Expires=60&X-Goog-Signature=<S>",
        "Set-Cookie: CloudFront-Signature=<S>; Path=/; Secure",
    ),
    surrounded(
        CLOUD, "Google service account key, one line", run(BASE64, 600, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"),
        '{"type":"service_account","private_key_id":"x","private_key":"<BEGIN>\\n<S>\\n<END>\\n","client_id":"1"}',
        'GOOGLE_CREDENTIALS={"type":"service_account","private_key":"<BEGIN>\\n<S>\\n<END>\\n"}',
        '{"log":"{\\"private_key\\":\\"<BEGIN>\\\\n<S>\\\\n<END>\\\\n\\"}"}',
    ),
    surrounded(
        CLOUD, "Google service account key, pretty", run(BASE64, 600, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"),
        '{\n  "type": "service_account",\n  "private_key": "<BEGIN>\\n<S>\\n<END>\\n",\n  "client_id": "1"\n}',
        'sa:\n  private_key: "<BEGIN>\\n<S>\\n<END>\\n"\n  type: service_account',
        "private_key: |\n  <BEGIN>\n  <S>\n  <END>\ntype: service_account",
    ),
    surrounded(
        CLOUD, "Azure SAS signature", run(BASE64, 43, "", "="),
        "https://a.blob.core.windows.net/c?sv=2022-11-02&ss=b&srt=co&sp=r&se=2026-12-31T00:00:00Z&sig=<Q>",
        "SharedAccessSignature=sv=2022-11-02&ss=b&sp=r&sig=<Q>",
        "Authorization: SharedAccessSignature sr=hub.azure-devices.net&sig=<Q>&se=1767225600&skn=device",
        "azcopy copy 'https://a.blob.core.windows.net/c?sp=r&sig=<Q>' /tmp",
    ),
    surrounded(
        CLOUD, "Azure account key", run(BASE64, 86, "", "=="),
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=<S>;EndpointSuffix=core.windows.net",
        "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=<S>",
        "AccountEndpoint=https://x.documents.azure.com:443/;AccountKey=<S>;",
        "InstrumentationKey=0;HostName=h.azure-devices.net;SharedAccessKeyName=o;SharedAccessKey=<S>",
        "az storage blob list --account-name a --account-key <S>",
    ),
    surrounded(
        CLOUD, "Azure client secret in requests", joined(run(ALNUM, 3), text("8Q~"), run(URLSAFE + "~.", 34)),
        "POST /oauth2/v2.0/token grant_type=client_credentials&client_id=x&client_secret=<Q>&scope=y",
        "az login --service-principal -u x -p <S> --tenant y", '{"appId":"x","password":"<S>","tenant":"y"}',
        '{"clientId":"x","clientSecret":"<S>","tenantId":"y"}',
        "AADSTS7000215: invalid client secret provided: '<S>' for app x",
    ),
    surrounded(
        CLOUD, "Kubernetes service account and bootstrap tokens",
        lambda rng: run(LOWER + DIGITS, 6)(rng) + "." + run(LOWER + DIGITS, 16)(rng),
        "kubeadm join 10.0.0.1:6443 --token <S> --discovery-token-ca-cert-hash sha256:ab",
        "users:\n- name: admin\n  user:\n    token: <S>", '[bootstrap-token] Using token: "<S>"',
    ),
    surrounded(
        CLOUD, "kubeconfig client key", run(BASE64, 400, "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQ"),
        "users:\n- name: admin\n  user:\n    client-key-data: <S>", '{"user":{"client-key-data":"<S>"}}',
        "client-key-data: <S>",
    ),
    surrounded(
        CLOUD, "Kubernetes Secret manifest", lambda rng: encoded(password(rng) + password(rng)),
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ntype: Opaque\ndata:\n  password: <S>",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ndata:\n  username: YWRtaW4=\n  db-uri: <S>\n",
        "apiVersion: v1\ndata:\n  credentials.json: <S>\nkind: Secret\nmetadata:\n  name: db",
        '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db"},"data":{"conf":"<S>"}}',
        '{"apiVersion":"v1","data":{"license":"<S>"},"kind":"Secret","metadata":{"name":"db"}}',
        "kind: Secret\nstringData:\n  app.conf: <S>\n",
    ),
)  # fmt: skip

SCHEMES = (
    "postgres", "postgresql+asyncpg", "mysql", "mysql+pymysql", "mongodb", "mongodb+srv", "amqp", "amqps", "clickhouse",
    "mssql+pyodbc", "snowflake", "oracle+cx_oracle", "cockroachdb", "nats", "mqtt", "couchbase", "ldap", "smtp", "ftp",
)  # fmt: skip

DATABASE_KINDS = (
    *(
        surrounded(
            DATABASES, f"{scheme}://", password,
            f"could not connect to {scheme}://<U>:<S>@<H>:5432/app?timeout=3",
            f"DATABASE_URL={scheme}://<U>:<S>@<H>/app",
            f'{{"level":"error","dsn":"{scheme}://<U>:<S>@<H>,<H>:27018/app"}}',
            f"engine = create_engine('{scheme}://<U>:<S>@<H>/app')",
            piece=8,
        )
        for scheme in SCHEMES
    ),
    surrounded(
        DATABASES, "address with a percent-encoded password", signed_password,
        "could not connect to postgres://<U>:<Q>@<H>:5432/app", "CELERY_BROKER_URL=amqp://<U>:<Q>@<H>//",
        "redis.exceptions: rediss://default:<Q>@<H>:6380/0", piece=8,
    ),
    surrounded(
        DATABASES, "address with a raw sign in the password", signed_password,
        "could not connect to postgres://<U>:<S>@<H>:5432/app", 'url: "mysql://<U>:<S>@<H>/app"',
        "invalid port in mongodb://<U>:<S>@<H>/app", piece=8,
    ),
    surrounded(
        DATABASES, "redis with a password only", password,
        "REDIS_URL=redis://:<S>@<H>:6379/0", "Error connecting to rediss://:<S>@<H>:6380", "requirepass <S>",
        "redis-cli -h <H> -a <S> ping", '127.0.0.1:6379> AUTH <S>', 'AUTH default <S>', piece=8,
    ),
    surrounded(
        DATABASES, "JDBC", password,
        "jdbc:postgresql://<H>:5432/app?user=<U>&password=<S>&ssl=true",
        "jdbc:sqlserver://<H>:1433;databaseName=app;user=<U>;password=<S>;encrypt=true",
        "jdbc:mysql://<U>:<S>@<H>:3306/app", "jdbc:oracle:thin:<U>/<S>@<H>:1521:orcl",
        "jdbc:snowflake://x.snowflakecomputing.com/?user=<U>&password=<S>&db=a", piece=8,
    ),
    surrounded(
        DATABASES, "SQL Server and ODBC", password,
        "Server=<H>,1433;Database=app;User Id=<U>;Password=<S>;Encrypt=True",
        "Driver={ODBC Driver 18 for SQL Server};Server=<H>;Uid=<U>;Pwd=<S>;",
        "DRIVER=SQL Server;UID=<U>;PWD=<S>;DATABASE=app", "Data Source=<H>;User ID=<U>;Password='<S>';",
        "Driver={PostgreSQL};Server=<H>;Uid=<U>;Pwd={<S>};", piece=8,
    ),
    surrounded(
        DATABASES, "libpq keywords and pgpass", password,
        "host=<H> port=5432 user=<U> password=<S> dbname=app sslmode=require",
        "psycopg2.connect('host=<H> password=<S>')",
        "/root/.pgpass line 1: <H>:5432:app:<U>:<S>", "<H>:5432:*:<U>:<S>", piece=8,
    ),
    surrounded(
        DATABASES, "SQL statements", password,
        "ALTER USER <U> WITH PASSWORD '<S>'", "CREATE USER <U> IDENTIFIED BY '<S>'",
        "CREATE ROLE <U> LOGIN PASSWORD '<S>' VALID UNTIL 'infinity'", "SET PASSWORD FOR 'a'@'%' = PASSWORD('<S>')",
        "ALTER LOGIN <U> WITH PASSWORD = N'<S>'", "GRANT ALL ON *.* TO 'a'@'%' IDENTIFIED BY '<S>'", piece=8,
    ),
    surrounded(
        DATABASES, "Go MySQL, Oracle and MongoDB shell", password,
        "dial error: <U>:<S>@tcp(<H>:3306)/app", "sqlplus <U>/<S>@<H>:1521/orcl", "sqlplus -s <U>/<S>@//<H>/orcl",
        "mongosh --host <H> -u <U> -p <S> app", 'db.createUser({user: "<U>", pwd: "<S>", roles: []})', piece=8,
    ),
    surrounded(
        DATABASES, "Kafka JAAS", password,
        'org.apache.kafka.common.security.plain.PlainLoginModule required username="<U>" password="<S>";',
        "sasl.jaas.config = ScramLoginModule required username='<U>' password='<S>';",
        "sasl.password=<S>", "ssl.keystore.password = <S>", "sasl.mechanism=PLAIN, sasl.plain.password: <S>", piece=8,
    ),
    surrounded(
        DATABASES, "LDAP bind", password,
        "ldapsearch -x -H ldap://<H> -D cn=admin,dc=x -w <S> -b dc=x", "bind_pw: <S>", "bindpw <S>",
        "BindRequest(version=3, dn='cn=admin', password='<S>')", "LDAP_BIND_PASSWORD=<S>", "bindCredential=<S>",
        piece=8,
    ),
)  # fmt: skip

BASIC: Maker = lambda rng: encoded(run(LOWER, 6)(rng) + ":" + password(rng))  # noqa: E731
OPAQUE = run(URLSAFE, 40)

HEADER_KINDS = (
    surrounded(
        HEADERS, "basic authorization", BASIC,
        "> Authorization: Basic <S>", '{"headers":{"Authorization":"Basic <S>"}}', "{'Authorization': 'Basic <S>'}",
        "proxy-authorization: basic <S>", "map[Accept:[*/*] Authorization:[Basic <S>] User-Agent:[Go]]",
        '"Authorization", "Basic <S>"', "headers=[(b'authorization', b'Basic <S>')]", piece=8,
    ),
    surrounded(
        HEADERS, "bearer authorization", OPAQUE,
        "> authorization: Bearer <S>", '"Authorization":["Bearer <S>"]', "{'authorization': 'bearer <S>'}",
        "map[Authorization:[Bearer <S>]]", "Authorization=Bearer <S>, Accept=*/*", "-H 'Authorization: Bearer <S>'",
        "bearer token <S> rejected", '"authorization", value: "Bearer <S>"', "Authorization%3A%20Bearer%20<S>",
    ),
    surrounded(
        HEADERS, "other authorization schemes", OPAQUE,
        "Authorization: Token <S>", "Authorization: ApiKey <S>", "Authorization: <S>", "Authorization: Splunk <S>",
        "Authorization: GenieKey <S>", "Authorization: Token token=<S>", "authorization: Klaviyo-API-Key <S>",
        "Authorization: SSWS <S>", "Authorization: Negotiate <S>", "Authorization: Bot <S>", "Authorization: DPoP <S>",
    ),
    surrounded(
        HEADERS, "digest response", run(HEX, 32),
        'Authorization: Digest username="<U>", realm="r", nonce="n", uri="/", response="<S>", qop=auth',
        'proxy-authorization: digest username="<U>", realm="r", uri="/", response="<S>"',
        '{"authorization":"Digest username=\\"<U>\\", uri=\\"/\\", response=\\"<S>\\""}',
    ),
    surrounded(
        HEADERS, "key headers", OPAQUE,
        "> X-Api-Key: <S>", "< x-auth-token: <S>", '{"X-API-KEY":"<S>"}', "{'x-api-key': '<S>'}",
        "map[X-Api-Key:[<S>]]", "X-Vault-Token: <S>", "PRIVATE-TOKEN: <S>", "X-Goog-Api-Key: <S>", "DD-API-KEY: <S>",
        "Ocp-Apim-Subscription-Key: <S>", "apikey: <S>", "X-Shopify-Access-Token: <S>", "X-CSRF-Token: <S>",
        "X-Access-Token=<S>", "x-amz-security-token:<S>", "api-key: <S>", "X-JFrog-Art-Api: <S>",
        "X-Rundeck-Auth-Token: <S>",
        "x-functions-key: <S>", "X-Consul-Token: <S>", "Circle-Token: <S>", "X-Figma-Token: <S>",
    ),
    surrounded(
        HEADERS, "cookies", OPAQUE,
        "> Cookie: lang=ko; sessionid=<S>; theme=dark", "Set-Cookie: session=<S>; HttpOnly; Path=/; Max-Age=3600",
        '{"cookie":"_ga=GA1.2; JSESSIONID=<S>"}', "cookies={'sid': '<S>', 'lang': 'en'}",
        "set-cookie: PHPSESSID=<S>; path=/",
        "Cookie: connect.sid=s%3A<S>.x", "Cookie: __Host-auth=<S>", "map[Cookie:[sid=<S>]]",
        "Set-Cookie: .AspNetCore.Identity=<S>; secure", "< set-cookie: remember_me=<S>; path=/",
    ),
    surrounded(
        HEADERS, "query strings", OPAQUE,
        '"GET /cb?code=ab&token=<S> HTTP/1.1" 302', '"GET /x?api_key=<S>&u=1 HTTP/2" 200', "/reset?reset_token=<S>",
        "url=/x%3Ftoken%3D<S>%26page%3D2", "https://<H>/#access_token=<S>&token_type=bearer", "?apikey=<S>",
        "/ws?auth=<S>", "?client_secret=<S>&a=1", "?id_token_hint=<S>", "?signature=<S>&expires=9", "/magic?key=<S>",
        '{"uri":"/x?a=1\\u0026access_token=<S>\\u0026b=2"}', "/x?refresh_token=<S>", "?jwt=<S>", "?password=<S>",
    ),
    surrounded(
        HEADERS, "OAuth bodies", OPAQUE,
        '{"access_token":"<S>","token_type":"Bearer","expires_in":3600}', "grant_type=refresh_token&refresh_token=<S>",
        "grant_type=password&username=<U>&password=<S>", '{"id_token":"<S>"}', "code=<S>&grant_type=authorization_code",
        "TokenResponse(accessToken=<S>, tokenType=Bearer, expiresIn=3600)", '{"refreshToken": "<S>"}',
        "device_code=<S>&grant_type=urn:ietf:params:oauth:grant-type:device_code", "client_assertion=<S>",
        "code_verifier=<S>&grant_type=authorization_code",
    ),
    surrounded(
        HEADERS, "GraphQL variables", OPAQUE,
        '{"query":"mutation($i:I!){login(i:$i){id}}","variables":{"i":{"password":"<S>"}}}',
        'mutation { login(email: "a", password: "<S>") { id } }', '{"variables":{"accessToken":"<S>","first":10}}',
        "variables={i={user=a, apiToken=<S>}}",
    ),
)  # fmt: skip

DUMP_KINDS = (
    surrounded(
        DUMPS, "password in a structure", password,
        '{"user":"<U>","password":"<S>","host":"<H>"}', "{'user': '<U>', 'passwd': '<S>'}",
        "{user=<U>, password=<S>, port=5432}",
        "&{Host:<H> User:<U> Password:<S> Port:5432}", '&db.Config{Host:"<H>", Password:"<S>", Port:5432}',
        "Config(host='<H>', password='<S>')", 'Config { host: "<H>", password: "<S>" }', 'Some(Secret { pass: "<S>" })',
        "  password: <S>", "password = <S>", '"password" => "<S>"', ":password=>\"<S>\"", "password: '<S>',",
        "<password><S></password>", '<add key="Password" value="<S>"/>', "dbPassword=<S>",
        "spring.datasource.password=<S>",
        '[password] => <S>', 'Password: "<S>"', 'map[password:<S> user:<U>]', 'password="<S>" user="<U>"', piece=8,
    ),
    surrounded(
        DUMPS, "password with signs, quoted", signed_password,
        '{"user":"<U>","password":"<S>"}', "{'password': '<S>', 'a': 1}", 'DB_PASSWORD="<S>"', "password: '<S>'",
        '{"log":"{\\"password\\":\\"<S>\\"}"}', "Password='<S>';", "export PGPASSWORD='<S>'", piece=8,
    ),
    surrounded(
        DUMPS, "password with signs, unquoted", signed_password,
        "DB_PASSWORD=<S>", "password: <S>", "Server=<H>;Pwd=<S>;Encrypt=True", "user=<U> password=<S> host=<H>",
        piece=8,
    ),
    surrounded(
        DUMPS, "passphrase of several words",
        lambda rng: " ".join(run(LOWER, rng.randint(5, 8))(rng) for _ in range(4)),
        'passphrase: "<S>"', '{"passphrase":"<S>"}', "KEY_PASSPHRASE='<S>'", 'password="<S>"', piece=8,
    ),
    surrounded(
        DUMPS, "password said in prose", password,
        "login failed for <U> with password <S>", "the temporary password is <S>", "password for <U> is '<S>'",
        "Your new password: <S>", "generated password for user elastic: <S>", 'using password "<S>"',
        "Please use the following password to proceed to installation:\n\n<S>\n", "set password to <S>",
        "A temporary password is generated for root@localhost: <S>", "pw: <S>", "creds: <U>/<S>", "credentials <U>:<S>",
        "Initial admin password: <S>", piece=8,
    ),
    surrounded(
        DUMPS, "netrc, npmrc, pypirc and htpasswd", OPAQUE,
        "machine <H> login <U> password <S>", "machine <H>\n  login <U>\n  password <S>\n",
        "//registry.npmjs.org/:_authToken=<S>", "//<H>/:_password=<S>", "_auth=<S>",
        "[pypi]\nusername = __token__\npassword = <S>",
        "default login <U> password <S>", "npm config set //<H>/:_authToken <S>",
    ),
    surrounded(
        DUMPS, "docker config auth", lambda rng: encoded(run(LOWER, 8)(rng) + ":" + run(ALNUM, 24)(rng)),
        '{"auths":{"https://index.docker.io/v1/":{"auth":"<S>"}}}', '{"auths": {"<H>": {"auth": "<S>"}}}',
        '"<H>":{\n\t\t\t"auth": "<S>"\n\t\t}', '{"auths":{"<H>":{"identitytoken":"<S>"}}}', "registry-auth: <S>",
    ),
    surrounded(
        DUMPS, "git and package addresses", OPAQUE,
        "fatal: unable to access 'https://<U>:<S>@<H>/o/r.git/': 403", "https://<S>@<H>/o/r.git",
        "origin https://oauth2:<S>@<H>/o/r.git (fetch)", "https://x-access-token:<S>@<H>/o/r",
        "pip install --index-url https://<U>:<S>@<H>/simple pkg",
        "Looking in indexes: https://__token__:<S>@<H>/simple",
        "Cloning into 'r'... https://gitlab-ci-token:<S>@<H>/o/r.git", "http_proxy=http://<U>:<S>@<H>:3128",
        "git+https://<S>:x-oauth-basic@<H>/o/r.git@v1", "HTTPS_PROXY=<U>:<S>@<H>:3128",
    ),
    surrounded(
        DUMPS, "terraform and helm", OPAQUE,
        '  ~ password = "old" -> "<S>"', 'db_password = "<S>"',
        '"admin_token": {"sensitive": true, "type": "string", "value": "<S>"}',
        "helm upgrade app ./c --set auth.password=<S>", "--set-string adminPassword=<S>", "-var=db_password=<S>",
        '-var "db_password=<S>"', 'Outputs:\n\nclient_secret = "<S>"', 'TF_VAR_db_password=<S>',
        '      + secret_string = "<S>"',
    ),
)  # fmt: skip

COMMAND_KINDS = (
    surrounded(
        COMMANDS, "command lines", password,
        "mysql -h <H> -u <U> -p<S> app", "mysqldump --user=<U> --password=<S> app", "sshpass -p <S> ssh <U>@<H>",
        "sshpass -p '<S>' scp a <U>@<H>:", "curl -u <U>:<S> https://<H>/x", "curl --user '<U>:<S>' https://<H>",
        "docker login -u <U> -p <S> <H>", "echo <S> | docker login -u <U> --password-stdin",
        "PGPASSWORD=<S> psql -h <H>",
        "openssl rsa -passin pass:<S> -in k.pem", "keytool -storepass <S> -list",
        "wget --http-password=<S> https://<H>",
        "echo '<U>:<S>' | chpasswd", "smbclient //<H>/s -U <U>%<S>", "ansible-playbook x.yml -e ansible_password=<S>",
        "htpasswd -b .htpasswd <U> <S>", "net use Z: \\\\<H>\\s <S> /user:<U>", "zip -P <S> a.zip b",
        "7z a -p<S> a.7z b",
        "mount -t cifs //<H>/s /m -o username=<U>,password=<S>", "rabbitmqctl add_user <U> <S>",
        "ipmitool -H <H> -U <U> -P <S> power",
        "useradd <U> -p <S>", "gpg --batch --passphrase <S> -d f", "vault login <S>",
        "kubectl create secret generic x --from-literal=password=<S>",
        "redis-cli --pass <S>", "snmpwalk -v2c -c <S> <H>", "az login -u <U> -p <S>", "sudo -S <<< '<S>'", piece=8,
    ),
    surrounded(
        COMMANDS, "CI logs", OPAQUE,
        "##[debug]Evaluating: secrets.TOKEN => '<S>'", "+ export DEPLOY_TOKEN=<S>",
        "$ echo $TOKEN\n<S>\n" .replace("\n<S>", " # TOKEN=<S>"),
        "Setting environment variable NPM_TOKEN to <S>", "::set-output name=token::<S>", "::add-mask::<S>",
        "CI_JOB_TOKEN=<S>", '##vso[task.setvariable variable=apiToken;issecret=true]<S>',
        "echo \"TOKEN=<S>\" >> $GITHUB_ENV",
    ),
    surrounded(
        COMMANDS, "SMTP, IMAP and FTP sessions", lambda rng: encoded("\0" + run(LOWER, 6)(rng) + "\0" + password(rng)),
        "C: AUTH PLAIN <S>", "AUTH PLAIN <S>", ">>> AUTH LOGIN\n<<< 334 UGFzc3dvcmQ6\n>>> <S>", "=> AUTH XOAUTH2 <S>",
        "send: 'AUTH PLAIN <S>\\r\\n'", "334 UGFzc3dvcmQ6\n<S>\n235 ok", piece=8,
    ),
    surrounded(
        COMMANDS, "plain session passwords", password,
        "a1 LOGIN <U>@x.org <S>", "ftp> USER <U>\n331\nPASS <S>\n230 ok", "---> PASS <S>", "C: PASS <S>",
        "EHLO\n>>> PASS <S>", piece=8,
    ),
    surrounded(
        COMMANDS, "otpauth addresses", run(BASE32, 32),
        "otpauth://totp/Acme:alice?secret=<S>&issuer=Acme",
        "qr=otpauth%3A%2F%2Ftotp%2FAcme%3Fsecret%3D<S>%26issuer%3DAcme",
        '{"uri":"otpauth://hotp/x?issuer=A&secret=<S>&counter=1"}',
    ),
    surrounded(
        COMMANDS, "one-time codes", run(DIGITS, 6),
        "sending OTP <S> to user 8812", "verification code: <S>", '{"otp":"<S>","channel":"sms"}', "otp_code=<S>",
        "Your login code is <S>", "인증번호 [<S>]를 입력해 주세요", "mfa_code=<S> accepted",
    ),
)  # fmt: skip

WEBHOOK_KINDS = (
    surrounded(
        WEBHOOKS, "Slack webhook", joined(run(UPPER + DIGITS, 8, "T"), run(UPPER + DIGITS, 8, "/B"), run(ALNUM, 24,
        "/")),
        "POST https://hooks.slack.com/services/<S> 404", '{"url":"https://hooks.slack.com/services/<S>"}',
        "SLACK_URL=https://hooks.slack.com/services/<S>", "https://hooks.slack.com/workflows/<S>",
        "slack_api_url: https%3A%2F%2Fhooks.slack.com%2Fservices%2F<Q>",
    ),
    surrounded(
        WEBHOOKS, "Discord webhook", run(URLSAFE, 68),
        "https://discord.com/api/webhooks/112233445566778899/<S>",
        "POST discordapp.com/api/webhooks/112233445566778899/<S> 429",
        '{"hook":"https://discord.com/api/v10/webhooks/112233445566778899/<S>"}',
    ),
    surrounded(
        WEBHOOKS, "Teams webhook", run(HEX, 32),
        "https://acme.webhook.office.com/webhookb2/00000000-0000-4000-8000-000000000000@t/IncomingWebhook/<S>/x",
        'url: "https://outlook.office.com/webhook/x@y/IncomingWebhook/<S>/z"',
        "https://prod-1.westeurope.logic.azure.com:443/workflows/a/triggers/manual/paths/invoke?sp=x&sv=1.0&sig=<S>",
    ),
    surrounded(
        WEBHOOKS, "Telegram address", joined(run(DIGITS, 10), run(URLSAFE, 33, ":AA")),
        "POST https://api.telegram.org/bot<S>/sendMessage 401", '{"path":"/bot<S>/getUpdates"}',
        "telegram.error: https://api.telegram.org/file/bot<S>/x.jpg",
    ),
    surrounded(
        WEBHOOKS, "Sentry DSN", run(HEX, 32),
        "SENTRY_DSN=https://<S>@o1.ingest.sentry.io/2", "dsn: 'https://<S>:@sentry.acme.org/2'",
        "init(dsn='https://<S>@o1.ingest.us.sentry.io/2')",
    ),
    surrounded(
        WEBHOOKS, "Google Chat and Zapier addresses", run(URLSAFE, 43),
        "https://chat.googleapis.com/v1/spaces/AAA/messages?key=AIzx&token=<S>",
        "https://chat.googleapis.com/v1/spaces/A/messages?token=<S>%3D",
        "https://hooks.zapier.com/hooks/catch/1234567/<S>/", "https://hook.eu1.make.com/<S>",
        "https://api.pushover.net/?token=<S>", "https://open.feishu.cn/open-apis/bot/v2/hook/<S>",
    ),
)  # fmt: skip

KOREAN_KINDS = (
    surrounded(
        KOREAN, "비밀번호", password,
        "사용자 <U> 로그인 실패, 비밀번호: <S>", "비밀번호=<S> 확인 바랍니다", "비밀번호는 <S> 입니다",
        "임시 비밀번호 : <S>",
        "임시 비밀번호는 '<S>'입니다.", '{"사용자":"<U>","비밀번호":"<S>"}', "DB 비밀번호(<S>)가 만료되었습니다",
        "초기비밀번호 <S> 로 접속",
        "패스워드: <S>", "패스워드=<S>", "비번: <S>", "비번은 <S>", "새 비밀번호로 <S> 설정", piece=8,
    ),
    surrounded(
        KOREAN, "암호와 접속 정보", password,
        "암호=<S>", "암호: <S>", "접속 암호는 <S>입니다", "계정/암호: <U>/<S>", "아이디: <U>, 암호: <S>",
        "ID/PW: <U>/<S>",
        "ID : <U> / PW : <S>",
        "접속정보 <U> / <S>", "root 계정 암호를 <S>(으)로 변경", piece=8,
    ),
    surrounded(
        KOREAN, "인증 키와 토큰", OPAQUE,
        "인증키: <S>", "API 키: <S>", "API키=<S> 가 만료됨", "액세스 토큰: <S>", "토큰=<S>", "비밀키: <S>",
        "시크릿 키 : <S>",
        "인증 토큰은 <S> 입니다",
        "서비스키=<S>", "개인키: <S>", "접근 토큰 [<S>] 검증 실패",
    ),
)  # fmt: skip


def pem(kind: str, begin: str = "-----") -> Maker:
    """The whole block; :func:`credentials` takes the body lines as the hidden texts."""

    def make(rng: random.Random) -> str:
        lines = [run(BASE64, 64)(rng) for _ in range(rng.randint(4, 12))] + [run(BASE64, 38)(rng) + "=="]
        if kind == "RSA" and rng.random() < 0.5:
            lines[:0] = ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0011", ""]
        block = " BLOCK" if kind == "PGP" else ""
        label = f"{kind} PRIVATE KEY{block}".strip()
        return f"{begin}BEGIN {label}{begin}\n" + "\n".join(lines) + f"\n{begin}END {label}{begin}"

    return make


PEM_SURROUNDINGS = (
    "loaded key:\n<S>\ndone",
    '{"key":"<E>"}',
    "tls.key: |\n<I>\ntls.crt: x",
    "open /k.pem: invalid\n<S>",
    "SSH_KEY='<S>'",
    "2026-03-01 10:00:00 key is <C> (cut",
    "PRIVATE_KEY=<E>",
    '{"log":"<EE>"}',
    "<P>",
    "key <O> end",
)
PEM_KINDS = tuple(
    Kind(KEYS, f"PEM {kind or 'PKCS8'}", pem(kind), PEM_SURROUNDINGS)
    for kind in ("", "RSA", "EC", "OPENSSH", "PGP", "ENCRYPTED", "DSA")
)
OTHER_KEY_KINDS = (
    Kind(KEYS, "SSH2 key", pem("SSH2 ENCRYPTED", "---- "), ("key:\n<S>", "<S>\n", "x <S>")),
    surrounded(
        KEYS, "PuTTY key", run(BASE64, 64),
        "PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 2\n<S>\n<S>\nPrivate-MAC: 00", "Private-Lines: 1\n<S>\n",
        "Private-MAC: <S>",
    ),
    surrounded(
        KEYS, "WireGuard key", run(BASE64, 43, "", "="),
        "[Interface]\nPrivateKey = <S>\nAddress = 10.0.0.2/32", "PresharedKey=<S>", "wg set wg0 private-key <S>",
        '{"privateKey":"<S>"}',
    ),
    surrounded(
        KEYS, "JWK private part", run(URLSAFE, 43),
        '{"kty":"EC","crv":"P-256","x":"a","y":"b","d":"<S>"}', '{"kty":"oct","k":"<S>","alg":"HS256"}',
        '{"d":"<S>","kty":"OKP","crv":"Ed25519"}', '{\n "kty": "RSA",\n "n": "a",\n "d": "<S>"\n}',
    ),
    surrounded(
        KEYS, "password hashes", run(ALNUM + "./", 53),
        "root:$6$saltsalt$<S>:19000:0:99999:7:::", "<U>:$2y$10$<S>", '{"password_hash":"$2b$12$<S>"}',
        "hash=$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$<S>",
        "ALTER ROLE x PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$<S>'", "<U>:$apr1$salt$<S>",
    ),
    surrounded(
        KEYS, "wallet seed and hex private key", run(HEX, 64),
        "private_key=0x<S>", '{"privateKey":"0x<S>"}', "signing with key 0x<S>", "wallet private key: <S>",
    ),
)  # fmt: skip


def email(rng: random.Random) -> str:
    local = run(LOWER, 5)(rng) + rng.choice((".", "_", "-", "")) + run(LOWER, 6)(rng)
    return local + rng.choice(("", "+alerts", "+t" + run(DIGITS, 3)(rng)))


def card(rng: random.Random, prefix: str, size: int) -> str:
    digits = prefix + run(DIGITS, size - 1 - len(prefix))(rng)
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def grouped(value: str, sizes: Sequence[int], sign: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(value[at : at + size])
        at += size
    return sign.join(part for part in parts if part)


def payment_card(rng: random.Random) -> str:
    sign = rng.choice(("", " ", "-"))
    if rng.random() < 0.3:
        return grouped(card(rng, rng.choice(("34", "37")), 15), (4, 6, 5), sign)
    return grouped(card(rng, rng.choice(("4", "51", "55", "2221", "6011", "3528")), 16), (4, 4, 4, 4), sign)


IBAN_SHAPES: Mapping[str, Maker] = {
    "DE": run(DIGITS, 18),
    "FR": run(DIGITS, 23),
    "GB": joined(run(UPPER, 4), run(DIGITS, 14)),
    "NL": joined(run(UPPER, 4), run(DIGITS, 10)),
    "ES": run(DIGITS, 20),
    "NO": run(DIGITS, 11),
    "MT": joined(run(UPPER, 4), run(DIGITS, 5), run(UPPER + DIGITS, 18)),
    "CH": run(DIGITS, 17),
    "PL": run(DIGITS, 24),
}


def iban(rng: random.Random) -> str:
    country = rng.choice(tuple(IBAN_SHAPES))
    body = IBAN_SHAPES[country](rng)
    number = int("".join(str(int(sign, 36)) for sign in f"{body}{country}00"))
    whole = f"{country}{98 - number % 97:02d}{body}"
    return grouped(whole, (4,) * 9, " ") if rng.random() < 0.5 else whole


def rrn(rng: random.Random) -> str:
    born = f"{rng.randint(40, 99):02d}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
    body = born + str(rng.randint(1, 2)) + run(DIGITS, 5)(rng)
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    check = (11 - sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11) % 10
    return f"{body[:6]}-{body[6:]}{check}"


def ssn(rng: random.Random) -> str:
    return f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"


def international_phone(rng: random.Random) -> str:
    return rng.choice(
        (
            "+1" + run("23456789", 10)(rng),
            "+44 20 " + run("3456789", 4)(rng) + " " + run(DIGITS, 4)(rng),
            "+49 151 " + run(DIGITS, 8)(rng),
            "+82-10-" + run("23456789", 4)(rng) + "-" + run(DIGITS, 4)(rng),
            "+8210" + run("23456789", 8)(rng),
            "+1 (415) 555-" + run(DIGITS, 4)(rng),
            "+33 6 12 34 " + run(DIGITS, 2)(rng) + " " + run(DIGITS, 2)(rng),
        )
    )


def korean_mobile(rng: random.Random) -> str:
    sign = rng.choice(("-", "-", "", " ", "."))
    return "010" + sign + run("23456789", 4)(rng) + sign + run(DIGITS, 4)(rng)


PERSON = (
    "customer <S> could not be charged",
    '{"level":"error","user":"<S>","status":500}',
    "WARN ref=<S> retry=3",
    "User(id=12, contact='<S>')",
    "문의자 <S> 님의 요청이 실패했습니다",
    "id=12 contact=<S>, plan=pro",
    "<S> was rejected by the gateway",
    "map[contact:<S> id:12]",
)
PERSONAL_KINDS = (
    surrounded(
        PERSONAL, "email address", email,
        "mail to <S>@mail.example.org bounced", '{"user":"<S>@example.com"}',
        "from=<<S>@eu.mail.example.co.kr>, size=12",
        "/u?email=<S>%40example.com&x=1", "mailto:<S>@example.io", "User(email=<S>@example.com)",
        "<S>@sub.example.museum 로 발송 실패",
        "login:<S>@example.com:ok", '{"log":"{\\"email\\":\\"<S>@example.com\\"}"}', piece=64,
    ),
    Kind(PERSONAL, "payment card", payment_card, PERSON, 8),
    Kind(PERSONAL, "IBAN", iban, PERSON, 12),
    Kind(PERSONAL, "Korean resident number", rrn, PERSON, 8),
    Kind(PERSONAL, "international phone", international_phone, PERSON, 9),
    Kind(PERSONAL, "Korean mobile", korean_mobile, PERSON, 9),
    surrounded(
        PERSONAL, "US social security number", ssn,
        "SSN <S> mismatch", '{"ssn":"<S>"}', "social security number: <S>", "applicant <S> rejected by bureau",
        "ssn=<S>", piece=8,
    ),
    surrounded(
        PERSONAL, "national phone with words",
        lambda rng: rng.choice((f"({rng.randint(201, 989)}) 555-", f"{rng.randint(201, 989)}-555-", "02-345-",
        "031-" + "782-"))
        + run(DIGITS, 4)(rng),
        "phone: <S>", "tel <S>", "please call <S>", '{"phone_number":"<S>"}', "전화번호: <S>", "mobile=<S>",
        "연락처 <S>",
        piece=8,
    ),
)  # fmt: skip

KINDS: tuple[Kind, ...] = (
    *VENDOR_KINDS,
    *NAMELESS_KINDS,
    *CLOUD_KINDS,
    *DATABASE_KINDS,
    *HEADER_KINDS,
    *DUMP_KINDS,
    *COMMAND_KINDS,
    *PEM_KINDS,
    *OTHER_KEY_KINDS,
    *WEBHOOK_KINDS,
    *KOREAN_KINDS,
    *PERSONAL_KINDS,
)


def user(rng: random.Random) -> str:
    return rng.choice(("app", "svc_orders", "root", "deploy", "reader", "kim"))


def host(rng: random.Random) -> str:
    return rng.choice(
        ("db-1.internal", "10.2.3.4", "orders.svc.cluster.local", "pg.example.net", "registry.example.io")
    )


def _named(template: str, name: str) -> str:
    words = name.lower().split("_")
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    forms = {
        "<NAME>": name,
        "<name>": name.lower(),
        "<camel>": camel,
        "<Camel>": camel[0].upper() + camel[1:],
        "<kebab>": "-".join(words),
        "<kebab_dots>": ".".join(words),
    }
    for mark, form in forms.items():
        template = template.replace(mark, form)
    return template


def _filled(template: str, rng: random.Random) -> str:
    makers: Mapping[str, Maker] = {
        "<U>": user,
        "<H>": host,
        "<N>": run(DIGITS, 5),
        "<AKIA>": AKIA,
        "<BEGIN>": text("-----BEGIN " + "PRIVATE KEY-----"),
        "<END>": text("-----END " + "PRIVATE KEY-----"),
    }
    for mark, make in makers.items():
        while mark in template:
            template = template.replace(mark, make(rng), 1)
    return template


def _placed(template: str, secret: str) -> tuple[str, tuple[str, ...]]:
    """The text with the secret in it, in each form the template asks for, and the forms it has there."""
    escaped = secret.replace("\n", "\\n")
    forms = {
        "<S>": secret,
        "<Q>": urllib.parse.quote(secret, safe=""),
        "<E>": escaped,
        "<EE>": escaped.replace("\\n", "\\\\n"),
        "<I>": "\n".join(f"  {line}" for line in secret.split("\n")),
        "<C>": "\n".join(secret.split("\n")[:-2]),
        "<P>": "\n".join(f"2026-03-01T10:00:00Z app[1]: {line}" for line in secret.split("\n")),
        "<O>": secret.replace("\n", " "),
    }
    hidden: list[str] = []
    for mark, form in forms.items():
        if mark in template:
            template = template.replace(mark, form)
            hidden.append(form)
    if "\n" in secret:
        body = [line for line in secret.split("\n")[1:-1] if len(line) > 30]
        return template, tuple(line for line in body if line in template)
    return template, tuple(hidden)


def credentials(seed: int = SEED) -> Iterator[Sample]:
    """Credentials and personal data, :data:`PER_KIND` or one for each surrounding of every kind."""
    for kind in KINDS:
        rng = random.Random(f"{seed} {kind.name}")
        order = list(kind.surroundings)
        rng.shuffle(order)
        for number in range(max(PER_KIND, len(order))):
            template = order[number % len(order)]
            if kind.names:
                template = _named(template, rng.choice(tuple(kind.names)))
            line, hidden = _placed(_filled(template, rng), kind.make(rng))
            yield Sample(kind.group, kind.name, line, hidden, kind.piece)


HARMLESS: Mapping[str, tuple[str, ...]] = {
    "UUIDs": ("request_id=<UUID> done", '{"traceId":"<UUID>"}', "pod uid <UUID> evicted", "volume pvc-<UUID> bound"),
    "hashes": ("commit <HEX40> merged", "etag: \"<HEX32>\"", "sha256=<HEX64>", "md5 <HEX32> ok", "checksum: <HEX64>"),
    "trace ids": (
        "trace_id=<HEX32> span_id=<HEX16>", "traceparent: 00-<HEX32>-<HEX16>-01", '{"dd.trace_id":"<NUM19>"}',
    ),
    "image digests": (
        "app@sha256:<HEX64>", "Pulled image registry.example.io/app:v1.2.3@sha256:<HEX64>",
        "layer sha256:<HEX64> exists",
    ),
    "subresource integrity": (
        "integrity sha512-<B64_86>==", 'integrity="sha384-<B64_64>"', "npm ERR! sha512-<B64_86>== integrity",
    ),
    "Kubernetes names": (
        "pod/orders-<HEX10>-<LOW5> CrashLoopBackOff", "replicaset orders-<HEX10> scaled",
        "node ip-10-2-3-4.ec2.internal NotReady",
    ),
    "secret names": (
        "secretName: db-creds", "secretKeyRef:\n  name: db-creds\n  key: password", "secret/db-creds unchanged",
        'secret "tls-cert" not found',
        "imagePullSecrets: [regcred]", "existingSecret: redis-auth", "mounting secret db-creds at /etc/creds",
        "passwordSecretName: pg-main",
        "MountVolume.SetUp failed for volume \"token\" : secret \"default-token-<LOW5>\" not found",
    ),
    "token counts": (
        "token_count=<NUM4>", "max_tokens: 4096", "prompt_tokens=812 completion_tokens=91", '{"total_tokens":<NUM4>}',
        "tokens: <NUM4>",
        "tokens_per_second=<NUM4>", "max_completion_tokens=1024", "tokenizer=cl100k_base",
        "tokenizer loaded from /models/tokenizer.json",
        "token bucket refilled: tokens=<NUM4>", "unexpected token '}' at position <NUM4>",
        "SyntaxError: Unexpected token < in JSON",
        "near token: SELECT", "token_type=bearer expires_in=3600", "invalid token at line <NUM4>",
        "cached_tokens=<NUM6>",
    ),
    "password settings": (
        "password_policy=strong", "password_min_length=12", "passwordless login enabled",
        "password_encryption=scram-sha-256",
        "password_reset_required=true", "PasswordAuthentication no", "password: null", "password=None", 'password=""',
        "password=", "password: ********",
        "password_file=/run/secrets/db", "POSTGRES_PASSWORD_FILE=/run/secrets/pg", "password expired for user app",
        "password authentication failed for user \"app\"",
        "Enter password:", "invalid password", "passwordHash algorithm: bcrypt", "password=<redacted>",
        "password=${DB_PASSWORD}", "password: {{ .Values.pw }}",
        "password = var.db_password", "PASSWORD=$PASSWORD", "wrong password or username",
        "password rotation finished in 12s", "password_changed_at=2026-03-01",
    ),
    "secret and key settings": (
        "secrets_manager=enabled", "api_key_enabled=true", "auth=none", "auth: false", "auth_type=oauth2",
        "authMode=RBAC", "key=value", "cache key=user:12:orders",
        "primary_key=id", "sort_key=created_at", "partition_key=orders", "key_id=alias/orders",
        "public_key_algorithm=rsa", "secret_rotation_days=30",
        "private_key_path=/etc/ssl/k.pem", "access_key_age_days=<NUM4>", "credentials_provider=env",
        "credential chain: none found", "keyspace=orders",
        "foreign key constraint \"orders_customer_id_fkey\"", "Duplicate entry for key 'orders.idx_customer'",
        "idempotency_key=<UUID>", "routing.key=orders.created",
        "session_timeout=3600", "session: expired", "cookie_consent=accepted", "csrf=disabled",
        "client_id=orders-web", "KeyError: 'customer_id'",
    ),
    "ARNs": (
        "arn:aws:iam::123456789012:role/orders-deploy",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf", "arn:aws:sqs:eu-west-1:123456789012:orders",
        "User: arn:aws:sts::123456789012:assumed-role/ci/i-0abc is not authorized to perform: s3:GetObject",
    ),
    "AWS ids": (
        "i-<HEX17> terminated", "subnet-<HEX17>", "vol-<HEX17> attached", "sg-<HEX17>", "ami-<HEX17>",
        "RequestId: <UUID>", "eni-<HEX17> detached",
    ),
    "timestamps": (
        "1767225600123 start", "2026-03-01T10:22:41.123456789Z ok", "20260301102241", "ts=1767225600.123456",
        "[01/Mar/2026:10:22:41 +0000]",
    ),
    "IP addresses": (
        "10.2.3.4:5432 refused", "fe80::1ff:fe23:4567:890a%eth0", "2001:db8:85a3::8a2e:370:7334", "192.168.0.0/16",
        "peer 172.16.254.1:51820",
    ),
    "versions": (
        "v1.2.3-rc.1+build.<NUM6>", "linux 6.8.0-1021-aws", "openjdk 21.0.2+13-LTS", "nginx/1.25.4",
        "Chrome/122.0.6261.112", "go1.22.1",
    ),
    "stack frames": (
        "at com.acme.orders.PasswordEncoder.encode(PasswordEncoder.java:42)",
        'File "/app/auth/token_store.py", line 42, in refresh_token',
        "at Object.<anonymous> (/srv/app/node_modules/jsonwebtoken/verify.js:98:5)",
        "main.(*TokenCache).Get(0xc000123456, {0xc000456789, 0x24})",
        "goroutine 12 [running]: main.main.func1(0xc0000b6010)",
        "Caused by: javax.crypto.BadPaddingException: given final block not padded",
    ),
    "SQL": (
        "SELECT id, password_hash FROM users WHERE email = $1", "UPDATE tokens SET revoked = true WHERE id = <NUM6>",
        "INSERT INTO secrets (name, value) VALUES ($1, $2)",
        "CREATE TABLE api_keys (id bigint primary key)", "DELETE FROM sessions WHERE expires_at < now()",
        "ALTER TABLE users DROP COLUMN password",
        "SELECT count(*) FROM auth_tokens WHERE user_id = ?", "column \"password\" does not exist",
        "GRANT SELECT ON orders TO reader",
    ),
    "code": (
        "def get_token(self, secret_name: str) -> str:", "if token is None: raise ValueError",
        "password = os.environ['DB_PASSWORD']", "token := r.Header.Get(\"X-Token\")",
        "const apiKey = process.env.API_KEY;", "private String password;", "token: Optional[str] = None",
        "return self._password", "auth = AuthService(client)",
        "secret=settings.secret_key", "password=config.get('password')", "String token = request.getToken();",
        "self.api_key = api_key", "token=get_token()",
        "let pass = compute_pass(a, b);", "assert token.kind == Kind.NAME",
    ),
    "metrics": (
        "http_requests_total{code=\"200\",handler=\"/token\"} <NUM6>", "cpu=87.25% mem=912MiB", "p99=1203.55ms",
        "heap 1073741824 of 4294967296 bytes",
        "auth_failures_total 12", "secrets_read_total{result=\"ok\"} <NUM4>", "latency 12.3456789 s",
        "rate 1234567.89/s", "password_resets_total <NUM4>",
    ),
    "prices and coordinates": (
        "total $1,234.56", "₩1,234,000 결제", "lat=37.566535 lon=126.977969", "amount=1234567.00 KRW",
        "geo:52.520008,13.404954",
    ),
    "long numbers": (
        "order <NUM12>", "offset=<NUM14> lag=3", "bytes=<NUM11>", "snowflake id <NUM18>", "account 123456789012",
        "lsn 0/16B3748", "txid <NUM10>", "pid=<NUM6> uptime=<NUM8>",
    ),
    "paths": (
        "/var/run/secrets/kubernetes.io/serviceaccount/token", "/etc/ssl/private/server.key: permission denied",
        "open /root/.aws/credentials: no such file",
        "/home/app/.ssh/id_rsa not found", "C:\\Program Files\\Acme\\password_reset.exe",
        "s3://bucket/path/to/2026/03/01/part-00000-<UUID>.snappy.parquet",
        "GET /api/v1/passwords/reset 200", "POST /oauth/token 401 12ms", "vault path secret/data/orders/db",
        "/v1/tokens/revoke",
    ),
    "addresses without credentials": (
        "postgres://db-1.internal:5432/app", "redis://cache.internal:6379/0",
        "https://example.org/x?page=2&sort=name", "amqp://mq.internal/vhost",
        "git@github.com:acme/orders.git", "ssh://git@host.internal:2222/acme/orders.git",
        "https://login.example.org/oauth2/token", "user@orders-1:~$ ls",
        "mongodb+srv://cluster0.example.mongodb.net/app?retryWrites=true", "postgres://app@db-1.internal:5432/app",
        "https://hooks.slack.com is unreachable",
    ),
    "class and identifier names": (
        "org.springframework.security.authentication.UsernamePasswordAuthenticationToken",
        "InvalidClientTokenIdException", "SecretManagerServiceClient", "PasswordResetTokenRepositoryImpl",
        "AbstractAuthenticationProcessingFilterConfigurer", "kube-controller-manager-ip-10-0-0-1",
        "io.confluent.kafka.serializers.KafkaAvroDeserializer", "com.google.api.gax.rpc.UnauthenticatedException",
    ),
    "payload sizes": (
        "payload base64 length=<NUM4> bytes", "body is <NUM6> base64 characters", "gzip 12 -> 4 kB",
        "decoded <NUM4> of <NUM6> bytes", "content-length: <NUM6>",
    ),
    "Korean prose": (
        "비밀번호가 틀렸습니다", "비밀번호를 재설정해 주세요", "비밀번호 변경 주기는 90일입니다",
        "암호화 키 교체 작업이 완료되었습니다", "토큰이 만료되어 다시 로그인합니다",
        "비밀번호 오류 5회로 계정이 잠겼습니다",
        "인증 토큰 발급 서버 응답 지연", "암호 정책을 강화했습니다", "비밀번호: 8자 이상 입력", "비밀번호 없음",
        "API 키가 유효하지 않습니다", "결제 서비스 응답이 3초를 넘었습니다",
        "토큰 수: <NUM4>", "비밀번호 만료일: 2026-03-01",
        "사용자 비밀번호 불일치로 로그인 실패", "암호는 분기마다 바꿉니다", "접속정보 조회 실패",
        "인증번호 발송 실패 (통신사 오류)", "비번 변경 요청 건수 급증",
    ),
    "English prose": (
        "The password reset service is slow.", "Tokens are refreshed every 15 minutes.",
        "a secret is never logged here", "authorization header missing", "Bearer authentication required",
        "basic auth is disabled", "the API key has expired", "no credentials provided", "please rotate the key",
        "invalid bearer token", "signature verification failed", "Basic health check passed",
        "auth token is missing or malformed", "password must contain a digit",
        "the secret of a good cache is eviction", "Cookie: none", "session token refresh took 12 ms",
        "login code expired",
        "credentials: loaded from environment", "password is required", "password is incorrect", "token is invalid",
        "secret is mounted", "pass: 12 fail: 3", "passed=12 failed=0", "PASS TestOrders (0.03s)",
    ),
    "test results and codes": (
        "PASS: orders_test.go", "--- PASS: TestTokenRefresh (0.12s)", "exit code: 137", "error code 40001",
        "HTTP code: 503", "status code=<NUM4>", "code: ECONNREFUSED", "SQLSTATE[42P01]", "codec: h264",
        "zip code lookup",
    ),
    "Kafka and queues": (
        "topic=orders partition=12 offset=<NUM10>", "group orders-consumer-<UUID> rebalanced", "delivery tag <NUM6>",
        "message id <UUID>", "ReceiptHandle expired for message <UUID>", "consumer key deserializer StringDeserializer",
    ),
    "HTTP headers": (
        "Content-Type: application/json", "Cache-Control: max-age=3600", "x-request-id: <UUID>",
        "WWW-Authenticate: Bearer realm=\"api\"", "Access-Control-Allow-Headers: Authorization, X-Api-Key",
        "Vary: Cookie", "x-amz-request-id: <UP16>", "x-amzn-trace-id: Root=1-<HEX8>-<HEX24>", "cf-ray: <HEX16>-ICN",
    ),
    "certificates": (
        "CN=orders.example.org,O=Acme", "serial 04:<HEX2>:<HEX2>:<HEX2>:<HEX2>:<HEX2>",
        "SHA256 Fingerprint=<HEX2>:<HEX2>:<HEX2>:<HEX2>:<HEX2>:<HEX2>",
        "x509: certificate signed by unknown authority", "notAfter=Mar  1 10:22:41 2027 GMT",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    "public keys": (
        "host key fingerprint SHA256:<B64_43>", "kid=<HEX40>", "ED25519 key fingerprint is SHA256:<B64_43>.",
        "jwks refreshed: 3 keys",
    ),
    "terraform": (
        "aws_secretsmanager_secret.db: Creating...", "random_password.db: Still creating... [10s elapsed]",
        "+ password = (sensitive value)", "+ token = (known after apply)",
        "module.vault.vault_token.ci: Refreshing state", "Plan: 3 to add, 0 to change",
    ),
    "masked values": (
        "Authorization: Bearer ***", "api_key=****************", "token=[REDACTED]", "AWS_SECRET_ACCESS_KEY=***",
        "password=xxxxx", "Cookie: [FILTERED]", "postgres://app:***@db-1.internal/app", '"password":"[FILTERED]"',
    ),
    "feature flags and modes": (
        "sslmode=verify-full", "mfa=enabled", "2fa_required=false", "otp_length=6", "sso: saml", "auth_strategy=ldap",
        "signing=on", "encryption=at-rest", "TOKEN_TTL=3600", "SESSION_COOKIE_SECURE=True", "JWT_ALGORITHM=RS256",
        "PASSWORD_HASHERS=argon2",
    ),
    "dependencies": (
        "jsonwebtoken@9.0.2", "python-jose==3.3.0", "passlib[bcrypt]>=1.7", "keyring 24.3.0",
        "io.jsonwebtoken:jjwt-api:0.12.5", "github.com/golang-jwt/jwt/v5 v5.2.1",
        "spring-security-oauth2-client-6.2.2.jar", "cookie-parser@1.4.6",
    ),
    "ranges and shell": (
        "+ set -p pipefail", "mkdir -p /var/lib/app", "ps -p <NUM4>", "nc -w 3 10.2.3.4 5432", "tar -P -cf a.tar b",
        "grep -c password app.log", "ssh -p 2222 deploy@10.2.3.4", "docker run -p 8080:80 -u 1000:1000 app",
        "curl -u netrc https://example.org", "sort -u names.txt", "cut -d: -f1", "kubectl get secret -n orders",
        "psql -U app -d orders", "chmod -w file.txt",
    ),
}  # fmt: skip

SLOTS: Mapping[str, Maker] = {
    "<UUID>": uuid,
    "<UP16>": run(UPPER + DIGITS, 16),
    "<LOW5>": run(LOWER, 5),
    **{f"<HEX{size}>": run(HEX, size) for size in (2, 8, 10, 16, 17, 24, 32, 40, 64)},
    **{f"<NUM{size}>": run(DIGITS[1:], size) for size in (4, 6, 8, 10, 11, 12, 14, 18, 19)},
    **{f"<B64_{size}>": run(BASE64, size) for size in (43, 64, 86)},
}
LINES = (
    "<T>",
    "2026-03-01T10:22:41Z INFO orders-api <T>",
    '{"level":"info","msg":<JSON>}',
    "[worker-3] WARN: <T> (attempt 2)",
    "Mar  1 10:22:41 node-7 app[812]: <T>",
    "E0301 10:22:41.000001       1 main.go:42] <T>",
)


def harmless(seed: int = SEED) -> Iterator[Sample]:
    """Tempting lines with nothing to hide: each should come back as it went in."""
    for kind, templates in HARMLESS.items():
        rng = random.Random(f"{seed} {kind}")
        for number in range(max(PER_HARMLESS_KIND, len(templates))):
            line = templates[number % len(templates)]
            for slot, make in SLOTS.items():
                while slot in line:
                    line = line.replace(slot, make(rng), 1)
            frame = LINES[number % len(LINES)]
            yield Sample(
                "harmless",
                kind,
                frame.replace("<JSON>", json.dumps(line, ensure_ascii=False)).replace("<T>", line),
                (),
                0,
            )


# What the masker did with this corpus, from SEED, when it first met it: before one pattern was mended for it.
FIRST_LEAKED: Mapping[str, int] = {
    "Hugging Face token": 11,
    "LangSmith key": 11,
    "Brevo key": 11,
    "Postmark-like Resend key": 11,
    "Notion token": 4,
    "Square token": 4,
    "JFrog key": 11,
    "JFrog reference token": 11,
    "crates.io token": 11,
    "New Relic keys": 3,
    "New Relic licence key": 11,
    "Honeycomb key": 11,
    "Netlify token": 11,
    "Vercel token": 12,
    "Pulumi token": 11,
    "Tailscale key": 11,
    "1Password service token": 11,
    "Asana token": 15,
    "Azure DevOps token": 11,
    "Google refresh token": 11,
    "Discord bot token": 11,
    "Buildkite token": 11,
    "Sourcegraph token": 11,
    "Infracost and Prefect keys": 11,
    "Contentful token": 11,
    "Datadog application key": 1,
    "PagerDuty key": 9,
    "Opsgenie key": 8,
    "Django secret key": 1,
    "Rails master key": 1,
    "encryption key": 8,
    "database password": 1,
    "short-named password": 9,
    "passphrase": 1,
    "Kubernetes Secret manifest": 9,
    "redis with a password only": 4,
    "SQL Server and ODBC": 3,
    "libpq keywords and pgpass": 7,
    "SQL statements": 5,
    "Go MySQL, Oracle and MongoDB shell": 7,
    "LDAP bind": 4,
    "bearer authorization": 1,
    "digest response": 14,
    "key headers": 2,
    "query strings": 2,
    "OAuth bodies": 5,
    "password in a structure": 1,
    "password said in prose": 9,
    "terraform and helm": 3,
    "command lines": 15,
    "CI logs": 3,
    "SMTP, IMAP and FTP sessions": 14,
    "plain session passwords": 14,
    "one-time codes": 8,
    "SSH2 key": 14,
    "JWK private part": 14,
    "password hashes": 9,
    "wallet seed and hex private key": 3,
    "Slack webhook": 3,
    "Discord webhook": 5,
    "Teams webhook": 5,
    "Google Chat and Zapier addresses": 7,
    "비밀번호": 4,
    "암호와 접속 정보": 7,
    "인증 키와 토큰": 8,
    "international phone": 1,
    "national phone with words": 1,
}
FIRST_CHANGED: Mapping[str, int] = {
    "secret names": 8,
    "token counts": 2,
    "password settings": 4,
    "secret and key settings": 1,
    "code": 15,
    "addresses without credentials": 2,
    "terraform": 13,
    "masked values": 6,
    "feature flags and modes": 2,
    "dependencies": 3,
    "ranges and shell": 2,
}
