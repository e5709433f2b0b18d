"""The runbooks collector on real folders, and on a real git repository."""

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from collectors._passages import MAX_TEXT, Section, best, markdown_outlines, question
from collectors.base import (
    CollectorError,
    Declared,
    Document,
    GapReason,
    Scope,
    Symptom,
    Target,
    Telemetry,
    Unreachable,
    Window,
)
from collectors.runbooks import RunbooksCollector, Settings, create, git_environment

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
POOL = """---
title: Payment runbook
services: [payment-service]
symptoms: connection pool exhausted
---
# Payment

What it does.

## Connection `pool`

Raise *maximumPoolSize*, then restart.

```bash
# not a heading
```

## Card data

Nothing to see.
"""


class FrozenClock:
    def now(self) -> datetime:
        return T0


def scope(title: str = "Connection pool exhausted on payment-service", *hints: str) -> Scope:
    return Scope(
        service="payment-service",
        occurred_at=T0,
        incident=Window(start=T0, end=T0 + timedelta(minutes=15)),
        baseline=(),
        symptom=Symptom(title=title),
        targets=(Target(service="payment-service"), Target(service="orders", hops=1)),
        hints=hints,
    )


async def found_in(folder: Path, asked: Scope | None = None, **settings: Any) -> Telemetry:
    collector = RunbooksCollector(FrozenClock(), Settings(dir=folder, **settings))
    return await collector.collect(asked or scope())


async def test_sections_are_quoted_with_their_headings_and_a_link(tmp_path: Path) -> None:
    (tmp_path / "team a").mkdir()
    (tmp_path / "team a" / "payment.md").write_text(POOL)
    found = await found_in(tmp_path, link_base="https://git.example/runbooks/blob/main/")
    first = found.documents[0]
    assert first == Document(
        title="Payment runbook",
        section="Payment > Connection pool",
        text="Raise *maximumPoolSize*, then restart.\n\n```bash\n# not a heading\n```",
        link="https://git.example/runbooks/blob/main/team%20a/payment.md#connection-pool",
        services=("payment-service",),
        why=first.why,
    )
    assert first.why.startswith("about payment-service, as the page says; shares with the alert: ")
    assert not found.gaps
    [query] = found.queries
    assert "payment-service" in query.text
    assert query.rows == len(found.documents) == 3


async def test_a_page_about_another_service_is_left_out_and_a_general_one_needs_two_words(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("---\nservices: [search]\n---\nconnection pool exhausted payment-service")
    (tmp_path / "general.md").write_text("# Databases\nWhen a connection pool is exhausted, look at slow queries.")
    (tmp_path / "lunch.md").write_text("# Lunch\nThe pool is open.")
    (tmp_path / "names.md").write_text("# Cards\nUsed by Payment Service only.")
    (tmp_path / "prefix.md").write_text("# Cards\nUsed by payment-service-admin only.")
    found = await found_in(tmp_path)
    assert sorted(d.title for d in found.documents) == ["Cards", "Databases"]
    assert "Used by Payment Service only." in {d.text for d in found.documents}


async def test_the_best_few_are_kept_and_hints_are_heard(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.md").write_text(f"---\nservices: payment-service\n---\n# Part {number}\nText {number}.")
    (tmp_path / "z.md").write_text("---\nservices: payment-service\n---\n# Certificates\nRenew the certificate.")
    found = await found_in(tmp_path, scope("Slow", "maybe the certificate expired"), max_sections=3)
    assert len(found.documents) == 3
    assert found.documents[0].title == "Certificates"


async def test_what_cannot_be_read_is_a_gap_and_skipped(tmp_path: Path) -> None:
    outside = tmp_path / "secret.md"
    outside.write_text("payment-service secret")
    folder = tmp_path / "runbooks"
    folder.mkdir()
    (folder / "leads-out.md").symlink_to(outside)
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "front.md").write_text("---\nservices: [payment-service\n---\nbody")
    (folder / "types.md").write_text("---\nservices: {a: {b: c}}\n---\nbody")
    (folder / "latin.md").write_bytes("Störung payment-service".encode("latin-1"))
    (folder / "huge.md").write_text("payment-service " * 1000)
    (folder / "folder.md").mkdir()
    os.mkfifo(folder / "pipe.md")
    (folder / ".git").mkdir()
    (folder / ".git" / "hidden.md").write_text("payment-service")
    (folder / "good.md").write_text("payment-service: restart it")
    found = await found_in(folder, max_file_bytes=5_000)
    assert [d.text for d in found.documents] == ["payment-service: restart it"]
    told = {gap.detail.partition(":")[0]: gap.detail.partition(": ")[2] for gap in found.gaps}
    assert told == {
        "leads-out.md": "a link that leads out of the folder",
        "loop.md": told["loop.md"],
        "front.md": "its front matter cannot be read",
        "types.md": "its front matter cannot be read",
        "latin.md": "not UTF-8",
        "huge.md": "larger than 5,000 bytes",
        "pipe.md": "no regular file",
    }


async def test_the_budget_of_files_is_told(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.md").write_text("payment-service")
    found = await found_in(tmp_path, max_files=2)
    assert len(found.documents) == 2
    assert [gap.reason for gap in found.gaps] == [GapReason.TRUNCATED]
    assert found.queries[0].truncated


async def test_nothing_that_fits_is_a_gap_and_no_folder_an_error(tmp_path: Path) -> None:
    found = await found_in(tmp_path)
    assert [gap.reason for gap in found.gaps] == [GapReason.EMPTY]
    with pytest.raises(Unreachable, match="no folder"):
        await found_in(tmp_path / "nowhere")
    checks = await RunbooksCollector(FrozenClock(), Settings(dir=tmp_path / "nowhere")).check()
    assert {check.status for check in checks} == {"failed"}


# --- git ---


def git(folder: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env={**os.environ, **identity})


def commit(repository: Path, name: str, text: str) -> None:
    (repository / name).write_text(text)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", name)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "origin"
    made.mkdir()
    git(made, "init", "--quiet", "--initial-branch=main")
    commit(made, "payment.md", POOL)
    return made


def cloning(repository: Path, **settings: Any) -> RunbooksCollector:
    known: dict[str, Any] = {"git_url": repository.as_uri(), "cache_dir": repository.parent / "cache"}
    return RunbooksCollector(FrozenClock(), Settings(**known | settings))


async def test_a_repository_is_fetched_again_when_it_is_too_old(repository: Path) -> None:
    young, old = cloning(repository), cloning(repository, refresh_minutes=0)
    assert len((await young.collect(scope())).documents) == 3
    git(repository, "mv", "payment.md", "renamed.md")
    commit(repository, "orders.md", "---\nservices: [orders]\n---\nSay sorry.")
    assert len((await young.collect(scope())).documents) == 3
    assert len((await old.collect(scope())).documents) == 4


async def test_what_was_read_before_stands_in_for_a_repository_that_is_gone(repository: Path) -> None:
    collector = cloning(repository, refresh_minutes=0, git_ref="main")
    await collector.collect(scope())
    git(repository.parent, "-C", str(repository), "branch", "--move", "gone")
    found = await collector.collect(scope())
    assert len(found.documents) == 3
    assert "git fetch failed" in found.gaps[0].detail
    restarted = await cloning(repository, git_ref="main").collect(scope())
    assert len(restarted.documents) == 3
    assert "git fetch failed" in restarted.gaps[0].detail
    with pytest.raises(CollectorError, match="git fetch failed"):
        await cloning(repository, git_ref="main", cache_dir=repository.parent / "another").collect(scope())


async def test_a_lock_that_a_killed_git_left_is_no_obstacle(repository: Path) -> None:
    await cloning(repository).collect(scope())
    [clone] = [path for path in (repository.parent / "cache").iterdir() if path.is_dir()]
    (clone / ".git" / "index.lock").touch()
    assert (await cloning(repository).collect(scope())).documents


async def test_links_in_a_repository_are_no_links_here(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("payment-service secret")
    (repository / "link.md").symlink_to(tmp_path / "secret.md")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "link")
    found = await cloning(repository).collect(scope())
    assert not [d for d in found.documents if d.text == "payment-service secret"]


async def test_a_git_that_takes_too_long_is_stopped(repository: Path) -> None:
    with pytest.raises(Unreachable, match="took longer than"):
        await cloning(repository, git_timeout_s=0.001).collect(scope())


async def test_a_cache_that_cannot_be_written_is_told(repository: Path) -> None:
    (repository.parent / "file").touch()
    with pytest.raises(CollectorError) as failed:
        await cloning(repository, cache_dir=repository.parent / "file" / "x").collect(scope())
    assert "RUNBOOKS_CACHE_DIR" in failed.value.mend


def test_the_token_travels_in_the_environment_and_only_to_its_host() -> None:
    settings = Settings(git_url="https://git.example/a/b", git_token=SecretStr("s3cret"))
    told = git_environment(settings)
    keys = [value for name, value in told.items() if name.startswith("GIT_CONFIG_KEY")]
    assert "http.https://git.example/.extraHeader" in keys
    assert told["GIT_ALLOW_PROTOCOL"] == "https:ssh:file"
    assert "s3cret" not in settings.model_dump_json()
    assert "http.https://" not in " ".join(git_environment(Settings(git_url="file:///a")).values())


@pytest.mark.parametrize(
    "settings",
    [
        {"git_url": "ext::sh -c id"},
        {"git_url": "http://git.example/a"},
        {"git_url": "--upload-pack=id"},
        {"git_url": "https://kim:secret@git.example/a"},
        {"git_url": "https://ghp_token@git.example/a"},
        {"git_url": "https://git.example/a", "git_ref": "--upload-pack=id"},
        {"git_url": "https://git.example/a", "git_ref": "a:b"},
    ],
)
def test_dangerous_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(**settings)  # type: ignore[arg-type]


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ValueError, match="needs RUNBOOKS_DIR"):
        create(FrozenClock(), Declared())


# --- passages ---


@pytest.mark.parametrize("piece", ["#", "[", "> ", "- ", "`", "*a ", "![](", "\n", "|"])
def test_malformed_markdown_is_read_in_no_time(piece: str) -> None:
    markdown_outlines(piece * (400_000 // len(piece)))


def test_rare_words_weigh_more_and_long_sections_are_cut() -> None:
    common = [Section(title="t", path=(str(n),), text="payment-service timeout") for n in range(20)]
    rare = Section(title="t", path=("rare",), text="payment-service deadlock " + "x" * 2 * MAX_TEXT)
    asked = question(scope("timeout deadlock"))
    first = best([*common, rare], asked, 2)[0]
    assert first.section == "rare"
    assert first.text.endswith("[…]")
    assert len(first.text) < MAX_TEXT + 10
    assert best([], asked, 2) == []
