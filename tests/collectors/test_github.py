"""The GitHub collector against answers of the documented shapes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from collectors.base import Declared, Forbidden, GapReason, GitHubRepository, RateLimited, Scope, Target, Window
from collectors.github import GitHubCollector, Settings, create, ui_url

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
DEPLOYMENTS, COMMITS = "/repos/shop/pay/deployments", "/repos/shop/pay/commits"
OLD, MID, NEW = "a" * 40, "b" * 40, "c" * 40

Json = dict[str, Any]
Answer = Callable[[httpx.Request], httpx.Response]


class FrozenClock:
    def now(self) -> datetime:
        return INCIDENT.end


def scope(*targets: Target) -> Scope:
    mine = Target(service="payment", github=GitHubRepository(repository="shop/pay", environment="production"))
    return Scope(
        service="payment",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(Window(start=T0 - timedelta(hours=1), end=T0),),
        targets=targets or (mine,),
    )


class GitHub:
    """Answers per path; what is not told is an empty list."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Answer] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(request.url.path)
        return answer(request) if answer else httpx.Response(200, json=[])

    def gives(self, path: str, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answers[path] = lambda _: httpx.Response(status, json=content, headers=headers)

    def deploys(self, *deployments: Json) -> None:
        """Each with the one status that its key ``_state`` names, a minute later."""
        self.gives(DEPLOYMENTS, list(deployments))
        for made in deployments:
            told = {"state": made["_state"], "created_at": made["_told_at"]}
            self.gives(f"{DEPLOYMENTS}/{made['id']}/statuses", [{"state": "inactive", "created_at": at(600)}, told])

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path == path]

    def collector(self, api_url: str = "https://api.github.com") -> GitHubCollector:
        return GitHubCollector(
            FrozenClock(), Settings(token=SecretStr("t"), api_url=api_url), httpx.MockTransport(self)
        )


@pytest.fixture
def github() -> GitHub:
    return GitHub()


def at(minutes: float) -> str:
    return (T0 + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deployment(number: int, sha: str, minutes: float, state: str = "success", environment: str = "production") -> Json:
    return {
        "id": number,
        "sha": sha,
        "ref": "main",
        "task": "deploy",
        "environment": environment,
        "creator": {"login": "kim"},
        "created_at": at(minutes),
        "_state": state,
        "_told_at": at(minutes + 1),
    }


def compared(*files: str, status: str = "ahead", commits: int = 2) -> Json:
    return {"status": status, "total_commits": commits, "files": [{"filename": name} for name in files]}


async def test_a_deployment_is_told_when_it_succeeded_with_what_it_changed(github: GitHub) -> None:
    github.deploys(
        deployment(4, "d" * 40, 300),  # after the incident's window
        deployment(3, NEW, -5),
        deployment(2, MID, -60, "failure"),
        deployment(1, OLD, -60 * 48),
    )
    github.gives(
        f"/repos/shop/pay/compare/{OLD}...{NEW}", compared("src/pay.py", "helm/values.yaml", ".env.production")
    )
    found = await github.collector().collect(scope())
    deployed, failed = found.changes
    assert (deployed.kind, deployed.component, deployed.author) == ("deploy", "payment", "kim")
    assert deployed.at == T0 - timedelta(minutes=4)
    assert deployed.version == NEW[:12]
    assert deployed.title == (
        "deployed main (cccccccccccc) to production; brings 2 commits, 3 files;"
        " configuration: helm/values.yaml, .env.production"
    )
    assert deployed.link == f"https://github.com/shop/pay/compare/{OLD}...{NEW}"
    assert failed.title == "deployment of main (bbbbbbbbbbbb) to production: failure"
    assert failed.link == f"https://github.com/shop/pay/commit/{MID}"
    assert not found.gaps
    assert not github.to(COMMITS)
    asked = github.to(DEPLOYMENTS)[0]
    assert dict(asked.url.params) == {"environment": "production", "per_page": "100"}
    assert asked.headers["X-GitHub-Api-Version"] == "2022-11-28"
    assert asked.headers["Accept"] == "application/vnd.github+json"
    assert asked.headers["Authorization"] == "Bearer t"


async def test_going_back_tells_what_is_taken_back(github: GitHub) -> None:
    github.deploys(deployment(2, OLD, -5), deployment(1, NEW, -30))
    github.gives(f"/repos/shop/pay/compare/{NEW}...{OLD}", compared(status="behind", commits=0))
    github.gives(f"/repos/shop/pay/compare/{OLD}...{NEW}", compared("config/pool.toml", commits=3))
    found = await github.collector().collect(scope())
    assert "takes back 3 commits, 1 files; configuration: config/pool.toml" in found.changes[0].title


async def test_a_deployment_still_running_is_told_as_such(github: GitHub) -> None:
    github.deploys(deployment(1, NEW, 5, "in_progress"))
    found = await github.collector().collect(scope())
    assert found.changes[0].title.endswith("to production: in_progress")


async def test_other_environments_are_not_what_ran_before(github: GitHub) -> None:
    github.deploys(deployment(3, NEW, -5), deployment(2, MID, -10, environment="staging"), deployment(1, OLD, -20))
    anywhere = Target(service="payment", github=GitHubRepository(repository="shop/pay"))
    await github.collector().collect(scope(anywhere))
    assert github.to(f"/repos/shop/pay/compare/{OLD}...{NEW}")
    assert "environment" not in github.to(DEPLOYMENTS)[0].url.params


async def test_services_of_one_repository_share_its_requests(github: GitHub) -> None:
    github.deploys(deployment(1, NEW, -5))
    repository = GitHubRepository(repository="shop/pay")
    found = await github.collector().collect(
        scope(*(Target(service=name, github=repository) for name in ("payment", "refunds")), Target(service="other"))
    )
    assert [change.component for change in found.changes] == ["payment", "refunds"]
    assert len(github.to(DEPLOYMENTS)) == 1


async def test_the_list_ends_with_what_ran_before_the_window(github: GitHub) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params.get("page", "1"))
        rows = [deployment(page, str(page) * 40, -60 * 13 * page)]
        link = f'<https://elsewhere.example/repositories/1/deployments?page={page + 1}>; rel="next"'
        return httpx.Response(200, json=rows, headers={"Link": link})

    github.answers[DEPLOYMENTS] = answer
    found = await github.collector().collect(scope())
    assert [request.url.params.get("page") for request in github.to(DEPLOYMENTS)] == [None, "2"]
    assert {request.url.host for request in github.requests} == {"api.github.com"}
    assert len(found.changes) == 1
    assert not [gap for gap in found.gaps if gap.reason == GapReason.TRUNCATED]


async def test_an_endless_list_ends(github: GitHub) -> None:
    link = f'<https://api.github.com{DEPLOYMENTS}?page=2>; rel="next"'
    github.gives(DEPLOYMENTS, [{"id": "?"}], headers={"Link": link})
    found = await github.collector().collect(scope())
    assert len(github.to(DEPLOYMENTS)) == 5
    told = "\n".join(gap.detail for gap in found.gaps)
    assert "5 rows were not understood: GET /repos/shop/pay/deployments?environment=production" in told
    assert "only the first 5 pages were read" in told


async def test_without_deployments_the_commits_are_told(github: GitHub) -> None:
    def commit(sha: str, minutes: float, **fields: Any) -> Json:
        signature = {"name": "Kim", "date": at(minutes)}
        body = {"message": "Raise pool\n\nbody", "committer": signature, "author": signature}
        return {"sha": sha, "commit": body, "author": None} | fields

    github.gives(COMMITS, [commit(NEW, -5, author={"login": "kim"}), commit(MID, -9), commit(OLD, 900), {"sha": "?"}])
    on_release = GitHubRepository(repository="shop/pay", branch="release/1 &x")
    found = await github.collector().collect(scope(Target(service="payment", github=on_release)))
    assert [(c.kind, c.title, c.author) for c in found.changes] == [
        ("other", "commit cccccccccccc: Raise pool", "kim"),
        ("other", "commit bbbbbbbbbbbb: Raise pool", "Kim"),
    ]
    params = github.to(COMMITS)[0].url.params
    assert (params["sha"], params["since"], params["until"]) == (
        "release/1 &x",
        "2024-12-19T09:00:00+00:00",
        "2024-12-20T09:15:00+00:00",
    )
    assert {gap.reason for gap in found.gaps} == {GapReason.EMPTY, GapReason.FAILED}


async def test_a_token_without_the_right_to_deployments_still_reads_commits(github: GitHub) -> None:
    signature = {"name": "Kim", "date": at(-5)}
    github.gives(DEPLOYMENTS, {"message": "Resource not accessible by personal access token"}, 403)
    github.gives(COMMITS, [{"sha": NEW, "commit": {"message": "Raise pool", "committer": signature}}])
    found = await github.collector().collect(scope())
    assert [change.title for change in found.changes] == ["commit cccccccccccc: Raise pool"]
    assert [gap.reason for gap in found.gaps] == [GapReason.FORBIDDEN]  # and not that there were no deployments


async def test_the_cap_on_files_is_told(github: GitHub) -> None:
    github.deploys(deployment(2, NEW, -5), deployment(1, OLD, -30))
    names = [f"deploy/{number}.yaml" for number in range(300)]
    github.gives(f"/repos/shop/pay/compare/{OLD}...{NEW}", compared(*names))
    found = await github.collector().collect(scope())
    assert "(+292 more)" in found.changes[0].title
    assert len(found.changes[0].title) <= 300
    assert GapReason.TRUNCATED in {gap.reason for gap in found.gaps}


@pytest.mark.parametrize("status", [403, 404])
async def test_a_hidden_repository_names_the_permissions(github: GitHub, status: int) -> None:
    github.gives(DEPLOYMENTS, {"message": "Not Found"}, status)
    github.gives(COMMITS, {"message": "Not Found"}, status)
    with pytest.raises(Forbidden) as refused:
        await github.collector().collect(scope())
    assert "Contents: read and Deployments: read on shop/pay" in refused.value.mend


async def test_a_comparison_that_is_refused_costs_only_itself(github: GitHub) -> None:
    github.deploys(deployment(2, NEW, -5), deployment(1, OLD, -30))
    github.gives(f"/repos/shop/pay/compare/{OLD}...{NEW}", {}, 404)
    found = await github.collector().collect(scope())
    assert found.changes[0].title == "deployed main (cccccccccccc) to production"
    assert [gap.reason for gap in found.gaps] == [GapReason.FORBIDDEN]


async def test_a_used_up_quota_is_no_missing_permission(github: GitHub) -> None:
    reset = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 1800)}
    github.gives(DEPLOYMENTS, {"message": "API rate limit exceeded"}, 403, reset)
    with pytest.raises(RateLimited, match="reset in"):
        await github.collector().collect(scope())
    assert len(github.requests) == 1


async def test_a_short_pause_is_waited_for(github: GitHub) -> None:
    github.deploys(deployment(1, NEW, -5))
    good = github.answers[DEPLOYMENTS]

    def answer(request: httpx.Request) -> httpx.Response:
        first = len(github.to(DEPLOYMENTS)) == 1
        return httpx.Response(429, headers={"retry-after": "0"}) if first else good(request)

    github.answers[DEPLOYMENTS] = answer
    assert (await github.collector().collect(scope())).changes


async def test_a_redirect_is_not_followed(github: GitHub) -> None:
    github.gives(DEPLOYMENTS, {}, 301, {"Location": "https://elsewhere.example/"})
    with pytest.raises(Exception, match="a redirect, which is not followed"):
        await github.collector().collect(scope())
    assert {request.url.host for request in github.requests} == {"api.github.com"}


async def test_check_tells_what_is_wrong(github: GitHub) -> None:
    github.gives("/rate_limit", {"rate": {"remaining": 4999}}, headers={"Date": "Fri, 20 Dec 2024 09:00:00 GMT"})
    github.gives("/user/repos", {}, 403)
    checks = {check.name: check for check in await github.collector().check()}
    assert checks["credentials"].detail == "https://api.github.com: 4999 requests left this hour"
    assert checks["clock"].status == "failed"
    assert checks["sample query"].status == "failed"


def test_enterprise_has_its_api_below_a_path() -> None:
    assert ui_url("https://api.github.com") == "https://github.com"
    assert ui_url("https://git.acme.example/api/v3") == "https://git.acme.example"


async def test_enterprise_is_asked_below_its_path(github: GitHub) -> None:
    await github.collector("https://git.acme.example/api/v3").collect(scope())
    assert str(github.requests[0].url).startswith(f"https://git.acme.example/api/v3{DEPLOYMENTS}?")


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    with pytest.raises(ValueError, match="needs GITHUB_TOKEN"):
        create(FrozenClock(), Declared())
