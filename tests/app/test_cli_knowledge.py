"""The commands for the memory and for postmortems: what they print, what they ask, and how they fail."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.security import Caller
from tests.app.deciding import KIM, VERA, Office, offices
from tests.app.doors import autopilot, product_of, served
from tests.app.test_knowledge_upkeep import ROWS, RUNBOOK

MEMORY = "Memory: that of DATABASE_URL\n"


class Terminal:
    """A person at the command line, on a machine that reaches both the API and the database of an office."""

    def __init__(self, office: Office, url: str, database_url: str) -> None:
        self.office, self.url, self.database_url = office, url, database_url

    async def ask(self, *arguments: str, caller: Caller = VERA) -> Result:
        """Over the API."""
        return await autopilot(self.office, self.url, caller, *arguments)

    async def keep(self, *arguments: str, typed: str = "") -> Result:
        """On the database."""
        environment = {"DATABASE_URL": self.database_url}
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, input=typed, env=environment)


@pytest.fixture
async def terminal(database_url: str) -> AsyncIterator[Terminal]:
    async with offices(database_url) as office, served(product_of(office)) as url:
        yield Terminal(office, url, database_url)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text(ROWS)
    return path


async def test_a_file_is_imported_and_found(terminal: Terminal, table: Path) -> None:
    done = await terminal.keep("knowledge", "import", str(table))
    assert done.exit_code == 1  # one row was left out
    assert done.stderr.startswith(MEMORY)
    assert "a.csv:4: it has no time; write when it happened, as 2024-12-20T09:15:00Z" in done.stderr
    assert done.stdout == "2 cases written, 0 known already, 1 left out.\n"
    again = await terminal.keep("knowledge", "import", str(table))
    assert again.stdout == "0 cases written, 2 known already, 1 left out.\n"
    found = await terminal.ask("knowledge", "search", "connection pool", "--service", "shop")
    assert "2023-11-24 by_hand  shop: Shop answers slowly [db]" in found.stdout
    assert "helped: Doubled the tasks" in found.stdout
    assert "found by words " in found.stdout
    listed = json.loads((await terminal.ask("knowledge", "search", "--json")).stdout)
    assert [hit["title"] for hit in listed["hits"]] == ["Shop is down", "Shop answers slowly"]
    [entry] = await terminal.office.audited("knowledge")
    assert entry["actor"].endswith("(command line)")


async def test_a_folder_with_runbooks_and_a_dry_run(terminal: Terminal, table: Path) -> None:
    (table.parent / "runbooks").mkdir()
    (table.parent / "runbooks" / "shop.md").write_text(RUNBOOK)
    looked = await terminal.keep("knowledge", "import", str(table.parent), "--dry-run")
    assert looked.stdout == "3 cases would be written, 0 known already, 1 left out.\n"
    assert await terminal.office.sql("select 1 from knowledge") == []
    await terminal.keep("knowledge", "import", str(table.parent))
    found = await terminal.ask("knowledge", "search", "double tasks")
    assert "runbook  shop: Shop" in found.stdout


async def test_what_cannot_be_imported_is_said(terminal: Terminal, table: Path) -> None:
    missing = await terminal.keep("knowledge", "import", str(table.parent / "b.csv"))
    assert (missing.exit_code, missing.stderr) == (
        2,
        f"autopilot: {table.parent / 'b.csv'}: there is no such file or folder\n",
    )
    zone = await terminal.keep("knowledge", "import", str(table), "--timezone", "Seoul")
    assert zone.exit_code == 2
    assert "there is no time zone 'Seoul'" in zone.stderr


async def test_all_of_it_is_written_out_and_read_in_again(terminal: Terminal, table: Path, tmp_path: Path) -> None:
    await terminal.keep("knowledge", "import", str(table))
    out = tmp_path / "cases.jsonl"
    done = await terminal.keep("knowledge", "export", "--out", str(out))
    assert done.stderr == f"{MEMORY}2 cases: {out}\n"
    printed = await terminal.keep("knowledge", "export")
    assert printed.stdout == out.read_text()
    again = await terminal.keep("knowledge", "import", str(out))
    assert (again.exit_code, again.stdout) == (0, "0 cases written, 2 known already, 0 left out.\n")
    nowhere = await terminal.keep("knowledge", "export", "--out", str(tmp_path / "no" / "cases.jsonl"))
    assert (nowhere.exit_code, "cannot be written: No such file or directory" in nowhere.stderr) == (2, True)


async def test_nothing_is_forgotten_before_somebody_says_yes(terminal: Terminal, table: Path) -> None:
    await terminal.keep("knowledge", "import", str(table))
    refused = await terminal.keep("knowledge", "forget", "--source", "a.csv", typed="n\n")
    assert refused.exit_code == 1
    assert "Forget 2 cases for good?" in refused.output
    assert len(await terminal.office.sql("select 1 from knowledge")) == 2
    done = await terminal.keep("knowledge", "forget", "--source", "a.csv", typed="y\n")
    assert done.stdout.endswith("2 cases forgotten.\n")
    none = await terminal.keep("knowledge", "forget", "--source", "a.csv", "--yes")
    assert (none.exit_code, none.stderr) == (1, f"{MEMORY}autopilot: There is no such case.\n")


async def test_by_age_runbooks_stay(terminal: Terminal, table: Path, tmp_path: Path) -> None:
    (tmp_path / "runbook.md").write_text(RUNBOOK)
    await terminal.keep("knowledge", "import", str(table))
    await terminal.keep("knowledge", "import", str(tmp_path / "runbook.md"))
    done = await terminal.keep("knowledge", "forget", "--before", "2024-01-01", "--yes")
    assert done.stdout == "1 case forgotten.\n"
    assert {r["title"] for r in await terminal.office.sql("select title from knowledge")} == {"Shop", "Shop is down"}


@pytest.mark.parametrize(
    "arguments", [("x", "--source", "a.csv"), ("--before", "last year"), ("--source", "a", "--before", "2024-01-01")]
)
async def test_it_must_be_said_what_to_forget(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert (await terminal.keep("knowledge", "forget", *arguments)).exit_code == 2


async def test_a_postmortem_is_printed_or_written(terminal: Terminal, tmp_path: Path) -> None:
    incident = await terminal.office.planned()
    printed = await terminal.ask("postmortem", incident, caller=KIM)
    assert printed.stdout.startswith("# Postmortem: t\n")
    out = tmp_path / "draft.md"
    written = await terminal.ask("postmortem", incident, "--language", "ko", "--out", str(out))
    assert (written.exit_code, written.stderr) == (0, f"Draft: {out}\n")
    assert out.read_text().startswith("# 장애 회고: t\n")
    missing = await terminal.ask("postmortem", "inc_0")
    assert (missing.exit_code, missing.stderr) == (1, "autopilot: There is no incident 'inc_0'.\n")


async def test_words_of_strangers_move_no_cursor(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("title,date\n[red]safe\x1b[2J\u202e,2024-01-01T00:00:00Z\n,x\x1b[2J\n")
    for shown in (
        await terminal.keep("knowledge", "import", str(tmp_path / "a.csv")),
        await terminal.ask("knowledge", "search", "safe"),
    ):
        assert not {"\x1b", "\u202e"} & set(shown.output)
    assert "[red]safe" in (await terminal.ask("knowledge", "search", "safe")).stdout
