"""``autopilot connect``: what it shows to paste, what it does by API, and that it sees the first delivery."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.session
import httpx
import pytest
import yaml
from botocore import xform_name
from botocore.config import Config
from botocore.validate import ParamValidator
from moto.server import ThreadedMotoServer
from moto.sns.models import sns_backends
from pydantic import SecretStr

from app.connect import ConnectError, doubts
from app.connect_datadog import DatadogConnector
from app.intake.datadog import TEMPLATE
from app.intake.datadog import Settings as Datadog
from collectors.datadog import Settings as Account
from tests import processes
from tests.app.intake.test_cloudwatch import CONFIRMED, refusal, server
from tests.conftest import ROOT, TOKEN, World, Worlds

PUBLIC = "https://autopilot.example.com"
TOPIC = "arn:aws:sns:us-west-2:123456789012:connected"
CONFIGURATION = "/api/v1/integration/webhooks/configuration"
AWS_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
DATADOG_KEYS = {"DD-API-KEY": "test", "DD-APPLICATION-KEY": "test"}
NOWHERE = "postgresql://127.0.0.1:9/none"


def started(*arguments: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """``autopilot …`` with these settings and no others."""
    own = {"DATABASE_URL": NOWHERE, "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "app", *arguments],
        env={**os.environ, **own, **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]", seconds: float = 60) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    return process.returncode, out, err


def autopilot(*arguments: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    return ended(started(*arguments, folder=folder, **environment))


@contextmanager
def running(*arguments: str, folder: Path, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    process = started(*arguments, folder=folder, **environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_it_waits(process: "subprocess.Popen[str]") -> str:
    """What it printed until it began to wait; deliveries count from before that on."""
    assert process.stdout
    lines: list[str] = []
    while not lines or "Waiting up to" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    return "".join(lines)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


# --- settings in sentences ---


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AUTOPILOT_DATADOG_WEBHOOK_TOKENS", "short", "a secret is shorter than 16 characters"),
        ("AUTOPILOT_GRAFANA_TOKENS", "short", "a secret is shorter than 16 characters"),
        ("AUTOPILOT_SLACK_TIMEZONE", "Nowhere", "no such time zone"),
        ("AUTOPILOT_CLOUDWATCH_TOPIC_ARNS", "x", "'x' is no topic's ARN"),
        ("AUTOPILOT_CLOUDWATCH_ACCEPT_SHA1", "perhaps", "Input should be a valid boolean"),
        ("AUTOPILOT_WORKER_CONCURRENCY", "0", "Input should be greater than or equal to 1"),
        ("DATABASE_URL", "mysql://a@b/c", "this is no Postgres URL"),
    ],
)
def test_a_mistake_is_told_with_the_whole_name_of_its_variable(
    variable: str, value: str, said: str, tmp_path: Path
) -> None:
    code, _, err = autopilot("serve", folder=tmp_path, **{variable: value})
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"autopilot: {variable}: {said}")


def test_a_mistake_of_a_sender_in_the_env_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\nAUTOPILOT_GENERIC_TOKENS=short\n")
    _, _, err = autopilot("serve", folder=tmp_path)
    assert err.startswith("autopilot: .env:2: AUTOPILOT_GENERIC_TOKENS: a secret is shorter")


# --- our own address ---


@pytest.mark.parametrize("url", [PUBLIC, "https://8.8.8.8", "https://autopilot.example.com:8443/base"])
def test_a_public_https_address_is_not_doubted(url: str) -> None:
    assert not doubts(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://autopilot.example.com",
        "https://localhost:8080",
        "https://127.0.0.1",
        "https://[::1]:8080",
        "https://10.1.2.3",
        "https://autopilot",
        "https://autopilot.local",
    ],
)
def test_an_address_that_no_vendor_reaches_is_doubted(url: str) -> None:
    assert url in doubts(url)


@pytest.mark.parametrize("sender", ["datadog", "slack"])
def test_the_doubt_is_told(sender: str, tmp_path: Path) -> None:
    code, out, err = autopilot("connect", sender, "--wait", "0", folder=tmp_path)
    assert code == 0
    assert "Warning: http://127.0.0.1:8080 cannot be reached from outside by https" in err
    assert "Warning" not in out
    assert autopilot("connect", sender, "--wait", "0", "--url", PUBLIC, folder=tmp_path)[2] == ""
    assert autopilot("connect", sender, "--url", "example.com", folder=tmp_path)[0] == 2


# --- Datadog ---


def test_what_to_paste_at_datadog(tmp_path: Path) -> None:
    code, out, _ = autopilot("connect", "datadog", "--wait", "0", "--url", f"{PUBLIC}/", folder=tmp_path)
    assert code == 0
    generated = re.search(r"^AUTOPILOT_DATADOG_WEBHOOK_TOKENS=([0-9a-f]{48})$", out, re.MULTILINE)
    assert generated
    assert out.count(generated[1]) == 1
    order = ["start `autopilot serve` again", "AIOPS_TOKEN", "Name: autopilot", f"URL:  {PUBLIC}/webhooks/datadog"]
    order += ['"schema": "aiops.datadog/1"', '{"X-AIOps-Token": "$AIOPS_TOKEN"}', "@webhook-autopilot"]
    assert sorted(order, key=out.index) == order
    assert json.loads(out[out.index("{\n") : out.index("\n}\n") + 2]) == TEMPLATE
    assert not list(tmp_path.glob(".env*")), "the token is printed and written nowhere"


def test_a_token_that_is_set_is_not_printed(tmp_path: Path) -> None:
    tokens = f"{TOKEN},the-old-token-of-the-tests"
    _, out, _ = autopilot("connect", "datadog", "--wait", "0", folder=tmp_path, AUTOPILOT_DATADOG_WEBHOOK_TOKENS=tokens)
    assert "the first value of AUTOPILOT_DATADOG_WEBHOOK_TOKENS" in out
    assert TOKEN not in out
    assert "the-old-token" not in out


class Said(list[str]):
    """What a connector says."""

    def __call__(self, text: str) -> None:
        self.append(text)


def connector(answer: Any, name: str = "autopilot", tokens: tuple[SecretStr, ...] = (SecretStr(TOKEN),)) -> Any:
    account = Account(api_key=SecretStr("api"), app_key=SecretStr("app"), site="datadoghq.eu")
    transport = httpx.MockTransport(answer)
    return DatadogConnector(Datadog(webhook_tokens=tokens), account, PUBLIC, name, Said(), transport)


async def test_another_name_has_a_secret_of_its_own() -> None:
    sent: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["dd-application-key"] == "app"
        assert request.url.host == "api.datadoghq.eu"
        sent.append((request.method, request.url.path, json.loads(request.content or b"null")))
        return httpx.Response(404 if request.method == "GET" else 201, json={})

    await connector(answer, "staging-eu").set_up()
    (_, variables, variable), (_, webhooks, webhook) = [s for s in sent if s[0] != "GET"]
    assert (variables, webhooks) == (f"{CONFIGURATION}/custom-variables", f"{CONFIGURATION}/webhooks")
    assert variable == {"name": "AIOPS_TOKEN_STAGING_EU", "value": TOKEN, "is_secret": True}
    assert json.loads(webhook["custom_headers"]) == {"X-AIOps-Token": "$AIOPS_TOKEN_STAGING_EU"}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "DATADOG_APP_KEY needs the permission manage_integrations; or the keys are of another site"),
        (401, "another site than DATADOG_SITE=datadoghq.eu"),
        (500, f"Datadog answered 500 to GET {CONFIGURATION}/custom-variables/AIOPS_TOKEN: Sorry"),
    ],
)
async def test_a_refusal_of_datadog_is_a_sentence(status: int, said: str) -> None:
    with pytest.raises(ConnectError, match=re.escape(said)):
        await connector(lambda _: httpx.Response(status, text="Sorry")).set_up()


async def test_an_answer_that_repeats_the_secret_is_not_shown_with_it() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404 if request.method == "GET" else 400, content=b"bad: " + request.content)

    with pytest.raises(ConnectError, match="Datadog answered 400 to POST") as refused:
        await connector(answer).set_up()
    assert TOKEN not in str(refused.value)


async def test_a_datadog_that_is_away_is_a_sentence() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with pytest.raises(
        ConnectError, match=r"cannot be reached at https://api.datadoghq.eu/?: no route. Check DATADOG_SITE"
    ):
        await connector(away).set_up()


async def test_a_secret_in_use_is_not_replaced_by_one_that_nobody_knows() -> None:
    def touched(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    with pytest.raises(
        ConnectError, match=r"(?s)nothing is changed at Datadog yet.*AUTOPILOT_DATADOG_WEBHOOK_TOKENS=[0-9a-f]{48}"
    ):
        await connector(touched, tokens=()).set_up()


@pytest.mark.parametrize("name", ["", "a b", "x" * 81, "naïve"])
def test_a_name_that_datadog_does_not_take(name: str) -> None:
    with pytest.raises(ConnectError, match="--name"):
        connector(None, name)


def deploy(url: str, definition: str) -> None:
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1")
    with closing(session.client("ecs", endpoint_url=url, config=Config(retries={"total_max_attempts": 1}))) as ecs:
        ecs.update_service(cluster="shop", service="checkout", taskDefinition=definition)


def environment_of(world: World, client: httpx.Client) -> dict[str, str]:
    return {**world.environment, "DATABASE_URL": world.database_url, "AUTOPILOT_PUBLIC_URL": str(client.base_url)}


def test_the_shop_is_connected_and_its_first_delivery_seen(worlds: Worlds, tmp_path: Path) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    environment = environment_of(world, client)

    def datadog(path: str) -> httpx.Response:
        return httpx.get(f"{world.shop_url}{CONFIGURATION}{path}", headers=DATADOG_KEYS)

    with running("connect", "datadog", "--wait", "60", folder=tmp_path, **environment) as process:
        processes.wait_until(lambda: datadog("/webhooks/autopilot").is_success, "the webhook at Datadog")
        deploy(world.shop_url, "checkout:73")
        code, out, err = ended(process)
    assert code == 0, err + world.logs()
    assert "Custom variable AIOPS_TOKEN: created." in out
    assert re.search(r"It came: datadog, .* UTC: checkout error rate is high; it opens no incident", out)
    assert TOKEN not in out + err

    made = datadog("/webhooks/autopilot").json()
    assert made["url"] == f"{str(client.base_url).rstrip('/')}/webhooks/datadog"
    assert json.loads(made["payload"]) == TEMPLATE
    variable = datadog("/custom-variables/AIOPS_TOKEN").json()
    assert variable["is_secret"] is True

    with running("connect", "datadog", "--wait", "60", folder=tmp_path, **environment) as process:
        out += until_it_waits(process)
        deploy(world.shop_url, "checkout:74")
        code, more, err = ended(process)
    assert code == 0, err + world.logs()
    assert "Webhook autopilot to" in out
    assert out.count("updated.") == 2
    incident = client.get("/incidents").json()["incidents"][0]["id"]
    assert f"checkout error rate is high, incident {incident}" in more
    assert datadog("/webhooks/autopilot").json() == made


def test_a_delivery_that_cannot_be_read_is_told_with_its_reason(worlds: Worlds, tmp_path: Path) -> None:
    world = worlds("black-friday")
    client = world.start_api()
    with running("connect", "slack", "--wait", "1", folder=tmp_path, **environment_of(world, client)) as slack:
        environment = {**environment_of(world, client), "DATADOG_API_KEY": "", "DATADOG_APP_KEY": ""}
        with running("connect", "datadog", "--wait", "30", folder=tmp_path, **environment) as process:
            until_it_waits(process)
            assert client.post("/webhooks/datadog", json={}, headers={"X-AIOps-Token": TOKEN}).status_code == 202
            code, out, err = ended(process)
        assert code == 0, err
        assert "but it is a dead letter: the payload has no title" in out
        assert "autopilot replay --dead-letter" in out
        code, out, err = ended(slack)
    assert code == 1
    assert "autopilot: Nothing came from Slack. Check that" in err


def test_what_came_before_does_not_count(worlds: Worlds, tmp_path: Path) -> None:
    world = worlds("black-friday")
    client = world.start_api()
    world.send_alert(client)
    environment = {**environment_of(world, client), "DATADOG_API_KEY": ""}
    code, out, err = autopilot("connect", "datadog", "--wait", "1", folder=tmp_path, **environment)
    assert code == 1
    assert "It came" not in out
    assert "mentions @webhook-autopilot outside {{#is_alert}}" in err


# --- Slack ---


def test_the_manifest_of_the_slack_app(tmp_path: Path) -> None:
    environment = {"AUTOPILOT_SLACK_SIGNING_SECRETS": "a-signing-secret-of-the-tests"}
    code, out, _ = autopilot("connect", "slack", "--wait", "0", "--url", PUBLIC, folder=tmp_path, **environment)
    assert code == 0
    text = out[out.index("display_information:") : out.index("\n\n   or open")]
    manifest = yaml.safe_load(text)
    assert set(manifest["oauth_config"]["scopes"]["bot"]) == {
        "channels:history",
        "groups:history",
        "channels:read",
        "groups:read",
        "app_mentions:read",
        "commands",
        "chat:write",
        "files:write",
    }
    events = manifest["settings"]["event_subscriptions"]
    assert events["request_url"] == f"{PUBLIC}/webhooks/slack/events"
    assert set(events["bot_events"]) == {"message.channels", "message.groups", "app_mention"}
    assert manifest["settings"]["interactivity"]["request_url"] == f"{PUBLIC}/webhooks/slack/actions"
    (command,) = manifest["features"]["slash_commands"]
    assert (command["command"], command["url"]) == ("/rca", f"{PUBLIC}/webhooks/slack/commands")
    (link,) = re.findall(r"^https://api\.slack\.com/apps\?\S+$", out, re.MULTILINE)
    assert yaml.safe_load(parse_qs(urlsplit(link).query)["manifest_yaml"][0]) == manifest
    assert "AUTOPILOT_SLACK_SIGNING_SECRETS=<Signing Secret>   # set already\n" in out
    assert "AUTOPILOT_SLACK_APP_ID=<App ID, A…>\n" in out
    assert "AUTOPILOT_SLACK_RESPONDERS=" in out
    assert "a-signing-secret" not in out


# --- CloudWatch, by hand ---


def commands_in(out: str) -> list[list[str]]:
    """The words of every ``aws`` command, with the shell's variables as they are."""
    lines = [line for line in out.splitlines() if re.match(r"(\w+=\$\()?aws ", line)]
    return [shlex.split(re.sub(r"^\w+=\$\((.*)\)$", r"\1", line)) for line in lines]


def check_with_amazons_model(words: list[str]) -> dict[str, Any]:
    """The parameters, as botocore's own model of the service takes them."""
    _, service, command, *options = words
    named = dict(zip(options[::2], options[1::2], strict=True))
    model = botocore.session.get_session().get_service_model(service)
    operation = next(o for o in model.operation_names if xform_name(o, "-") == command)
    shape = model.operation_model(operation).input_shape
    assert shape
    parameters: dict[str, Any] = {}
    for option, value in named.items():
        if option in ("--region", "--query", "--output"):
            continue
        name = option.removeprefix("--").replace("notification-endpoint", "endpoint")
        member = next(m for m in shape.members if xform_name(m, "-") == name)
        structured = shape.members[member].type_name in ("structure", "list")
        parameters[member] = _value(value) if structured else value
    report = ParamValidator().validate(parameters, shape)
    assert not report.has_errors(), report.generate_report()
    return parameters


def _value(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else [dict(pair.split("=", 1) for pair in text.split(","))]


def test_the_commands_to_paste_for_aws(tmp_path: Path) -> None:
    arguments = ("connect", "cloudwatch", "--topic", TOPIC, "--wait", "0", "--url", PUBLIC)
    code, out, _ = autopilot(*arguments, folder=tmp_path)
    assert code == 0
    assert f"\nAUTOPILOT_CLOUDWATCH_TOPIC_ARNS={TOPIC}\n" in out
    found = {words[2]: check_with_amazons_model(words) for words in commands_in(out)}
    assert list(found) == [
        "set-topic-attributes",
        "subscribe",
        "create-connection",
        "create-api-destination",
        "create-role",
        "put-role-policy",
        "put-rule",
        "put-targets",
    ]
    assert found["set-topic-attributes"]["AttributeName"] == "SignatureVersion"
    assert found["subscribe"] == {"TopicArn": TOPIC, "Protocol": "https", "Endpoint": f"{PUBLIC}/webhooks/cloudwatch"}
    assert found["create-connection"]["AuthParameters"]["ApiKeyAuthParameters"] == {
        "ApiKeyName": "X-Api-Key",
        "ApiKeyValue": "$KEY",
    }
    assert found["create-api-destination"]["InvocationEndpoint"] == f"{PUBLIC}/webhooks/eventbridge"
    policy = json.loads(found["put-role-policy"]["PolicyDocument"])
    assert policy["Statement"][0]["Action"] == "events:InvokeApiDestination"
    pattern = json.loads(found["put-rule"]["EventPattern"])
    assert "CloudWatch Alarm State Change" in pattern["detail-type"]
    assert (tmp_path / "check.sh").write_text(out[out.index("KEY=$(") :])
    assert subprocess.run(["bash", "-n", "check.sh"], cwd=tmp_path, check=False).returncode == 0


def test_a_topic_that_is_none(tmp_path: Path) -> None:
    code, _, err = autopilot("connect", "cloudwatch", "--topic", "alarms", folder=tmp_path)
    assert code == 1
    assert "--topic 'alarms': write an ARN such as arn:aws:sns:us-east-1:123456789012:alarms" in err


# --- CloudWatch, by API ---


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """An AWS that signs and delivers SNS for real."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def sns(aws: str) -> Iterator[Any]:
    """Its client; the topic is there, and nobody is subscribed to it."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-west-2")
    with closing(session.client("sns", endpoint_url=aws)) as client:
        assert client.create_topic(Name="connected")["TopicArn"] == TOPIC
        yield client
        client.delete_topic(TopicArn=TOPIC)


def run_api_that_trusts(database_url: str, port: int, aws: str) -> None:
    """The API, where this AWS plays Amazon's host of certificates."""
    import uvicorn
    from fastapi import FastAPI

    from app.intake.cloudwatch import Cloudwatch, Settings
    from app.main import create_app
    from app.settings import Settings as Product
    from tests.app.intake.test_cloudwatch import certificates_of

    app = create_app(Product(), database_url, worker=False)
    usual = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with usual(app) as state:
            app.state.product.senders["cloudwatch"] = Cloudwatch(Settings(), certificates_of(aws))
            yield state

    app.router.lifespan_context = lifespan
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)


def test_a_topic_is_subscribed_to_and_its_test_message_seen(
    aws: str, sns: Any, database_url: str, tmp_path: Path
) -> None:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AUTOPILOT_CLOUDWATCH_TOPIC_ARNS": TOPIC,
        "AUTOPILOT_PULL_EVERY_S": "0",
        "DATABASE_URL": database_url,
        **AWS_KEYS,
    }
    api = processes.spawn(run_api_that_trusts, tmp_path / "api.log", environment, database_url, port, aws)
    arguments = ("connect", "cloudwatch", "--topic", TOPIC, "--url", url, "--endpoint-url", aws, "--wait", "30")
    try:
        processes.wait_until(lambda: processes.answers(f"{url}/readyz"), "the API")
        for _ in range(2):
            code, out, err = autopilot(*arguments, folder=tmp_path, **environment)
            assert code == 0, err + (tmp_path / "api.log").read_text()
            assert re.search(r"It came: cloudwatch, .*: autopilot-connect-test; it opens no incident", out)
        (subscription,) = sns.list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"]
        assert (subscription["Protocol"], subscription["Endpoint"]) == ("http", f"{url}/webhooks/cloudwatch")
        assert vars(sns_backends[TOPIC.split(":")[4]]["us-west-2"].topics[TOPIC])["signature_version"] == "2"

        sns.set_subscription_attributes(
            SubscriptionArn=subscription["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue="true"
        )
        assert autopilot(*arguments[:-1], "0", folder=tmp_path, **environment)[0] == 0
        attributes = sns.get_subscription_attributes(SubscriptionArn=subscription["SubscriptionArn"])["Attributes"]
        assert attributes["RawMessageDelivery"] == "false"
    finally:
        processes.kill(api)


def test_a_topic_off_the_list_is_not_subscribed_to(aws: str, sns: Any, tmp_path: Path) -> None:
    arguments = ("connect", "cloudwatch", "--topic", TOPIC, "--url", PUBLIC, "--wait", "0")
    other = TOPIC.replace("connected", "other")
    code, _, err = autopilot(
        *arguments, folder=tmp_path, AWS_ENDPOINT_URL=aws, AUTOPILOT_CLOUDWATCH_TOPIC_ARNS=other, **AWS_KEYS
    )
    assert code == 1
    assert f"AUTOPILOT_CLOUDWATCH_TOPIC_ARNS={other},{TOPIC}" in err
    assert sns.list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"] == []


def test_a_refusal_of_aws_is_a_sentence(aws: str, tmp_path: Path) -> None:
    absent = TOPIC.replace("connected", "absent")
    code, _, err = autopilot(
        *("connect", "cloudwatch", "--topic", absent, "--url", PUBLIC, "--wait", "0", "--endpoint-url", aws),
        folder=tmp_path,
        AUTOPILOT_CLOUDWATCH_TOPIC_ARNS=absent,
        **AWS_KEYS,
    )
    assert code == 1
    assert "autopilot: AWS: An error occurred (NotFound)" in err
    assert "The credentials need sns:SetTopicAttributes" in err


def run_delivery(body: str) -> None:
    """A verified delivery from SNS, taken in."""
    import asyncio

    from app.alerts import Delivery, accept
    from app.intake.base import Incoming
    from app.settings import Settings
    from app.wiring import assembled

    async def take() -> None:
        settings = Settings()
        assert settings.database_url
        async with assembled(settings, settings.database_url.get_secret_value()) as product:
            parsed = product.senders["cloudwatch"].parse(Incoming({}, body.encode()), product.directory)
            await accept(product.desk, [Delivery("cloudwatch", {}, body.encode(), parsed)])

    asyncio.run(take())


def subscription(topic: str) -> str:
    """What SNS asks a new subscriber."""
    return json.dumps(
        {
            "Type": "SubscriptionConfirmation",
            "MessageId": f"165545c9-2a5c-472c-8df2-{time.time_ns():x}",
            "Token": "2336412f37",
            "TopicArn": topic,
            "Message": "You have chosen to subscribe …",
            "SubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription",
            "Timestamp": "2026-04-26T20:45:04.751Z",
            "SignatureVersion": "2",
            "Signature": "c2ln",
            "SigningCertURL": "https://sns.us-west-2.amazonaws.com/x.pem",
        }
    )


@pytest.mark.parametrize(
    ("status", "answer", "code", "said"),
    [
        (200, CONFIRMED, 0, f"Done: subscription to {TOPIC} confirmed."),
        (404, refusal("NotFound"), 1, "The subscription could not be confirmed: An error occurred (NotFound)"),
        (0, "", 1, "A worker does it: run `autopilot worker`"),  # there is none
    ],
)
def test_a_confirmation_is_awaited(
    status: int, answer: str, code: int, said: str, database_url: str, tmp_path: Path, stack: ExitStack
) -> None:
    sns_url, _ = stack.enter_context(server(status, answer))
    environment = {
        "AUTOPILOT_CLOUDWATCH_TOPIC_ARNS": TOPIC,
        "AUTOPILOT_CLOUDWATCH_ENDPOINT_URL": sns_url,
        "AUTOPILOT_PULL_EVERY_S": "0",
        "DATABASE_URL": database_url,
    }
    seconds = "40" if status else "8"
    arguments = ("connect", "cloudwatch", "--topic", TOPIC, "--url", PUBLIC, "--wait", seconds)
    process = stack.enter_context(running(*arguments, folder=tmp_path, **environment))
    printed = until_it_waits(process)
    assert "\naws sns subscribe " in printed
    delivery = processes.spawn(run_delivery, tmp_path / "delivery.log", environment, subscription(TOPIC))
    stack.callback(processes.kill, delivery)
    if status:
        worker = processes.spawn(processes.run_worker, tmp_path / "worker.log", environment, database_url)
        stack.callback(processes.kill, worker)
    found, out, err = ended(process)
    logs = "".join(f.read_text() for f in tmp_path.glob("*.log"))
    assert "It came: SNS asks for the subscription to be confirmed; a worker does that." in out, err + logs
    assert (found, said in out + err) == (code, True), out + err + logs
