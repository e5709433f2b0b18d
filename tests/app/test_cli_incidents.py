"""The commands for incidents and decisions: what they show, what they ask, and how they fail."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import get_args

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli_incidents import ChoiceName
from app.security import Caller
from graph.state import Choice
from tests.app.deciding import ANN, BOB, KIM, OPTIONS, VERA, Office, offices, option
from tests.app.doors import autopilot, key_of, product_of, served
from tests.app.listening import listening
from tests.app.test_cli import autopilot as autopilot_process
from tests.processes import free_port


class Terminal:
    """A person at the command line of a served office."""

    def __init__(self, office: Office, url: str) -> None:
        self.office, self.url = office, url

    async def run(self, *arguments: str, caller: Caller = KIM, typed: str = "") -> Result:
        """One command."""
        return await autopilot(self.office, self.url, caller, *arguments, typed=typed)

    async def decided(self, incident: str) -> list[str]:
        """The choices that are stored, each with its door."""
        rows = await self.office.sql("select choice, via from decision where incident_id = %s", incident)
        return [f"{row['choice']} by {row['via']}" for row in rows]


@pytest.fixture
async def terminal(database_url: str) -> AsyncIterator[Terminal]:
    async with offices(database_url) as office, served(product_of(office)) as url:
        yield Terminal(office, url)


def test_every_choice_can_be_typed() -> None:
    assert get_args(ChoiceName) == get_args(Choice)


# --- look ---


async def test_the_options_with_all_that_a_person_needs(terminal: Terminal) -> None:
    office = terminal.office
    incident = await office.planned()
    await office.decide(incident, "2", ANN)
    shown = await terminal.run("actions", incident)
    assert shown.exit_code == 0
    for part in (
        f"{incident}: awaiting decision; plan {await office.revision(incident)}, can be approved until 20",
        "1. Turn two",
        "risk low, about 1 min",
        "turn_dial",
        'service="shop"',
        "setting of shop: 1 -> 5",
        "touches shop (changed)",
        "share of the requests: not measured",
        "may not: kim is responder; to approve what is of high risk",
        "responder, 1 person",
        "ann (admin) approved 2 at 20",
    ):
        assert part in shown.stdout, shown.stdout
    [seen] = await office.sql("select who, what, via from shown where who = 'kim'")
    assert (seen["what"], seen["via"]) == (f"plan:{await office.revision(incident)}", "cli")


async def test_json_is_what_the_api_answers(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    shown = json.loads((await terminal.run("actions", incident, "--json")).stdout)
    assert shown["choices"] == ["1", "3", "manual", "re_analyze", "re_plan"]
    unknown = await terminal.run("actions", "inc_0/../../x", "--json")
    assert unknown.exit_code == 1


async def test_words_of_strangers_move_no_cursor_and_are_no_markup(terminal: Terminal) -> None:
    hostile = option("[red]safe[/red]\x1b[2J\u202e\x9b1A", ("turn_dial", "shop", 5))
    incident = await terminal.office.planned(options=[hostile])
    for arguments in (("actions", incident), ("actions", incident, "--json"), ("incidents",)):
        shown = await terminal.run(*arguments)
        assert not {"\x1b", "\u202e", "\x9b"} & set(shown.output)
    assert "1. [red]safe[/red] [2J  1A" in (await terminal.run("actions", incident)).stdout


async def test_incidents_are_listed(terminal: Terminal) -> None:
    first, second = await terminal.office.planned("a"), await terminal.office.open("b")
    every = (await terminal.run("incidents")).stdout
    assert every.index(second) < every.index(first)
    waiting = (await terminal.run("incidents", "--status", "awaiting_decision")).stdout
    assert first in waiting
    assert second not in waiting
    assert "There is no such incident." in (await terminal.run("incidents", "--service", "none")).stdout


async def test_how_people_decide(terminal: Terminal) -> None:
    assert "Nobody decided anything in 28 days." in (await terminal.run("decisions")).stdout
    incident = await terminal.office.planned()
    await terminal.run("actions", incident)
    await terminal.run("decide", incident, "manual", typed="y\n")
    shown = (await terminal.run("decisions", "--days", "7")).stdout
    assert "storefront" in shown
    assert "kim" in shown
    wrong = await terminal.run("decisions", "--timezone", "Seoul")
    assert (wrong.exit_code, wrong.stderr) == (
        1,
        "autopilot: There is no time zone 'Seoul'; write e.g. Asia/Seoul.\n",
    )


# --- decide ---


async def test_the_plan_is_shown_before_it_is_decided_on(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    revision = await terminal.office.revision(incident)
    no = await terminal.run("decide", incident, "1", typed="n\n")
    assert no.exit_code == 1
    assert "1. Turn two" in no.stdout
    assert f"Decide 1 on plan {revision}? [y/N]" in no.stdout
    assert await terminal.decided(incident) == []
    silent = await terminal.run("decide", incident, "1")  # nobody is there to say yes
    assert silent.exit_code == 1
    assert await terminal.decided(incident) == []
    yes = await terminal.run("decide", incident, "1", "--steps", "2", typed="y\n")
    assert yes.exit_code == 0
    assert f"Decide 1 (only step 2) on plan {revision}?" in yes.stdout
    assert "Decided: kim chose 1." in yes.stdout
    assert await terminal.decided(incident) == ["1 by cli"]
    await terminal.office.runner.advance(incident)
    assert terminal.office.dials.calls == ["turn_dial db 6"]


async def test_without_a_question_only_on_a_revision_that_is_named(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    revision = await terminal.office.revision(incident)
    for arguments in (("--yes",), ("--json",), ("--json", "--revision", revision)):
        refused = await terminal.run("decide", incident, "1", *arguments)
        assert refused.exit_code == 2
        assert "--revision" in refused.stderr
    assert await terminal.decided(incident) == []
    assert (await terminal.run("decide", incident, "1", "--revision", revision, "--yes")).exit_code == 0
    assert await terminal.decided(incident) == ["1 by cli"]


async def test_another_plan_than_the_one_that_was_named_is_not_decided_on(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    asked = await terminal.run("decide", incident, "1", "--revision", "3f0c8e2b91a74d65", typed="y\n")
    assert asked.exit_code == 1
    assert "The plan has changed" in asked.stderr
    told = await terminal.run("decide", incident, "1", "--revision", "3f0c8e2b91a74d65", "--yes")
    assert told.exit_code == 1
    assert told.stderr.startswith("autopilot: The plan has changed since it was shown to you")
    assert await terminal.decided(incident) == []
    not_awaited = await terminal.run("decide", await terminal.office.open("new"), "1", typed="y\n")
    assert not_awaited.stderr == "autopilot: No decision is awaited: the incident is received.\n"


async def test_a_refusal_is_the_sentence_of_the_api(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    revision = await terminal.office.revision(incident)
    refused = await terminal.run("decide", incident, "1", "--revision", revision, "--yes", caller=VERA)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "autopilot: vera is viewer; to decide takes responder.\n"
    long = await terminal.run("decide", incident, "manual", "--revision", revision, "--yes", "--note", "x" * 2001)
    assert long.exit_code == 1
    assert "body.note" in long.stderr
    assert (await terminal.run("decide", incident, "1", "--steps", "one", typed="y\n")).exit_code == 2
    assert await terminal.decided(incident) == []


async def test_two_people(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    first = await terminal.run("decide", incident, "2", caller=ANN, typed="y\n")
    assert "Your approval of 2 is stored; people who must approve the same: 1 more." in first.stdout
    second = await terminal.run("decide", incident, "2", caller=BOB, typed="y\n")
    assert "Decided: bob chose 2." in second.stdout


async def test_withdraw_and_note(terminal: Terminal) -> None:
    incident = await terminal.office.planned()
    nothing = await terminal.run("withdraw", incident)
    assert (nothing.exit_code, nothing.stderr[:42]) == (1, "autopilot: There is nothing to withdraw: n")
    await terminal.run("decide", incident, "1", "--note", "carefully", typed="y\n")
    assert "you may withdraw it" in (await terminal.run("actions", incident)).stdout
    assert (await terminal.run("withdraw", incident)).stdout == "The decision of 1 is withdrawn.\n"
    assert (await terminal.run("note", incident, "raised the pool to 80")).stdout == "Noted by kim.\n"
    [withdrawal], [note] = [await terminal.office.audited(kind, incident) for kind in ("withdrawal", "note")]
    assert (withdrawal["via"], note["via"], note["text"]) == ("cli", "cli", "raised the pool to 80")


async def test_who_takes_it_by_hand_gets_the_report_along(terminal: Terminal) -> None:
    office = terminal.office
    incident = await office.planned()
    manual = await terminal.run("decide", incident, "manual", "--note", "known fault of the bank", typed="y\n")
    report = re.search(r"by hand, with the report at (\S+)\.", manual.stdout)
    assert report is not None, manual.output
    await office.runner.advance(incident)
    assert (await office.get(incident))["status"] == "closed"
    async with httpx.AsyncClient() as client:
        headers = await key_of(office, KIM) | {"Accept": "text/markdown"}
        answer = await client.get(report[1], headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"][:13]) == (200, "text/markdown")
    assert "known fault of the bank" in answer.text
    assert office.dials.calls == []


async def test_only_rest_and_cli_are_labels(terminal: Terminal) -> None:
    """A client may call itself the command line; that it is Slack or the console, it may not."""
    incident = await terminal.office.planned()
    headers = {**await key_of(terminal.office, KIM), "X-AIOps-Via": "slack"}
    body = {"plan_revision": await terminal.office.revision(incident), "choice": "1"}
    async with httpx.AsyncClient(base_url=terminal.url) as client:
        answer = await client.post(f"/incidents/{incident}/decision", json=body, headers=headers)
    assert answer.status_code == 422
    assert await terminal.decided(incident) == []


# --- nobody answers, nobody is signed in ---

KEY = "ap_0123456789ab_a-secret-that-is-never-printed"


def run(*arguments: str, url: str, key: str = KEY) -> Result:
    """Without a served office."""
    result = CliRunner().invoke(app, arguments, env={"AUTOPILOT_API_KEY": key, "AUTOPILOT_PUBLIC_URL": url})
    assert "a-secret" not in result.output
    return result


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run("incidents", url=url)
    assert result.exit_code == 2
    assert result.stderr == (
        f"autopilot: {url} cannot be reached (ConnectError): is `autopilot serve` running there?\n"
    )


async def test_the_answer_is_lost(terminal: Terminal) -> None:
    """Whoever hears nothing must not believe that nothing was done."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        arguments = ("decide", "inc_1", "1", "--revision", "r", "--yes", "--url", url)
        result = await terminal.run(*arguments)
    assert result.exit_code == 2
    assert "It may have heard you all the same: look with `autopilot actions`" in result.stderr


def test_nobody_is_signed_in() -> None:
    result = run("actions", "inc_1", url="http://127.0.0.1:1", key="")
    assert (result.exit_code, result.stderr[:33]) == (2, "autopilot: You are not signed in:")


async def test_a_key_that_is_not_valid(terminal: Terminal) -> None:
    result = await asyncio.to_thread(run, "incidents", url=terminal.url)
    assert (result.exit_code, result.stderr[:36]) == (2, "autopilot: This key is not valid: se")


def test_another_service_answers_there() -> None:
    with listening() as other:
        result = run("withdraw", "inc_1", url=other.url)
        assert (result.exit_code, "answers 501, and not as this product does" in result.stderr) == (2, True)
        noted = run("note", "inc_1", "x", url=other.url)
        assert (noted.exit_code, "but not as this version expects" in noted.stderr) == (2, True)


@pytest.mark.parametrize("key", ["a secret of another kind", "ap_1_ü"])
def test_what_is_no_key_is_told_and_not_shown(key: str) -> None:
    result = autopilot_process("incidents", environment={"AUTOPILOT_API_KEY": key})
    assert result.returncode == 1
    assert result.stderr.startswith("autopilot: AUTOPILOT_API_KEY: this is no key of `autopilot keys create`")
    assert key not in result.stdout + result.stderr


def test_the_key_is_not_sent_to_what_is_no_address() -> None:
    result = run("incidents", "--url", "127.0.0.1:8080", url="http://127.0.0.1:1")
    assert (result.exit_code, "it begins with http:// or https://" in result.stderr) == (2, True)


async def test_a_real_process_decides(terminal: Terminal) -> None:
    incident = await terminal.office.planned(options=OPTIONS[:1])
    key = (await key_of(terminal.office, KIM))["Authorization"].removeprefix("Bearer ")
    environment = {"AUTOPILOT_API_KEY": key, "AUTOPILOT_PUBLIC_URL": terminal.url}
    arguments = ("decide", incident, "1", "--revision", await terminal.office.revision(incident), "--yes")
    done = await asyncio.to_thread(autopilot_process, *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    assert await terminal.decided(incident) == ["1 by cli"]
