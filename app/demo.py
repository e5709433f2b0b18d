"""``autopilot demo``: the whole loop on one machine, told in the terminal.

Everything that runs is the real thing in a process of its own: Postgres, the simulated shop (or a recorded bundle),
``autopilot serve`` and ``autopilot worker``. This file only starts them, sends the alert through the real webhook,
follows the incident over REST and SSE as any client would, and stops them again.
"""

import errno
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import yaml
from httpx_sse import connect_sse
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table

from app.clock import VirtualClock
from app.db import Connection, in_one_transaction, migrate
from app.embedded_postgres import EmbeddedPostgres
from app.report import Report
from app.report_texts import TEXTS, Texts, author, claims_verified, confidence, used
from app.security import issue
from app.simulator.notified import send_clicks_to
from app.simulator.notified import settings as notifiers
from app.simulator.scenarios import SCENARIOS
from collectors.replay import load_bundle
from graph.state import RootCause

STARTS_WITHIN_S = 90  # importing Gradio alone takes some ten seconds on a small machine
QUIET = ("status", "collector_started")


class DemoError(Exception):
    """The demo could not go on; the text says why."""


class Demo:
    """One run. ``run()`` gives the exit code: 0 only if the incident was verified resolved."""

    def __init__(
        self, scenario: str, choice: str, bundle: Path | None, *, port: int, speed: float, console: bool
    ) -> None:
        if scenario not in SCENARIOS:
            raise DemoError(f"there is no scenario {scenario!r}; there are: {', '.join(SCENARIOS)}")
        if choice not in ("", "1", "2", "3", "manual"):
            raise DemoError(f"--choice is 1, 2, 3 or manual, not {choice!r}")
        self.scenario, self.choice, self.bundle = SCENARIOS[scenario], choice, bundle
        self.port, self.speed, self.with_console = _bindable(port), speed, console
        self.out = Console(highlight=False)
        self.token = secrets.token_urlsafe(24)
        self.url = f"http://127.0.0.1:{self.port}"
        self.shop_url = ""  # of a recorded bundle there is no shop
        self.last_reading = ""  # a verification that says the same as before is not repeated

    def run(self) -> int:
        """Start everything, tell the story, stop everything; also when the terminal is closed."""
        for ending in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, signal.default_int_handler)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autopilot-demo-")))
            try:
                return self._run(stack, folder)
            except KeyboardInterrupt:
                self.out.print("\nStopped.")
                return 130
            except EOFError:
                raise DemoError("there is no terminal to ask for a decision: name one with --choice") from None

    def _run(self, stack: ExitStack, folder: Path) -> int:
        with self.out.status("Starting Postgres …"):
            server = EmbeddedPostgres(folder / "pg").start()
            stack.callback(server.stop)
            migrate(server.url)
            key, link = _credentials(server.url)
        with self.out.status("Starting the shop, the API, the worker and the console …"):
            environment = self._environment(stack, folder, server.url)
            serve = ["serve", "--no-worker", "--port", str(self.port)]
            serve.append("--console" if self.with_console else "--no-console")
            api = stack.enter_context(_process(folder / "serve.log", environment, "app", *serve))
            stack.enter_context(_process(folder / "worker.log", environment, "app", "worker"))
            client = stack.enter_context(
                httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
            )
            self._await_ready(client, api, folder / "serve.log")
        where = "/ui/" if self.with_console else "/docs"
        self.out.print(
            f"Live in the browser: [link]{self.url}/sign-in?token={link}&then={where}[/link]", soft_wrap=True
        )
        if self.shop_url:
            self.out.print(f"As its Slack shows it: [link]{self.shop_url}/_shop/slack[/link]", soft_wrap=True)
        incident = self._send_alert(client)
        code = self._story(client, incident)
        if not self.choice and self.out.is_terminal:
            self.out.input("Look around in the browser; [bold]Enter[/bold] stops everything. ")
        return code

    # --- starting ---

    def _environment(self, stack: ExitStack, folder: Path, database_url: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AUTOPILOT_", "DATADOG_", "DD_", "AWS_"))}
        kept |= {k: v for k, v in os.environ.items() if k == "AUTOPILOT_LANGUAGE"}
        common = {
            "DATABASE_URL": database_url,
            "AUTOPILOT_DATADOG_WEBHOOK_TOKENS": self.token,
            "AUTOPILOT_PULL_EVERY_S": "0",  # the story begins with a webhook
            "AUTOPILOT_PUBLIC_URL": self.url,
        }
        own = self._recorded(folder) if self.bundle else self._shop(stack, folder)
        return kept | common | own

    def _shop(self, stack: ExitStack, folder: Path) -> dict[str, str]:
        clock = VirtualClock(self.scenario.origin, time.time(), self.speed)
        arguments = ["--scenario", self.scenario.name, "--clock", str(clock)]
        process = stack.enter_context(_process(folder / "shop.log", dict(os.environ), "app.simulator", *arguments))
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise DemoError(f"the shop did not start:\n{_tail(folder / 'shop.log')}")
        self.shop_url = url = json.loads(line)["url"]
        self.clock = clock
        send_clicks_to(self.url, url)
        return {
            "AUTOPILOT_CLOCK": str(clock),
            "AUTOPILOT_CONFIG": str(Path(__file__).parent / "simulator" / "autopilot.yaml"),
            "AUTOPILOT_COLLECTORS": "datadog,aws",
            "AUTOPILOT_EXECUTORS": "ecs,traffic,rds,elasticache,appconfig",
            "AUTOPILOT_NOTIFIERS": "slack,jira,pagerduty",
            **notifiers(url),
            "DATADOG_BASE_URL": url,
            "DATADOG_API_KEY": "demo",
            "DATADOG_APP_KEY": "demo",
            **{
                f"AUTOPILOT_{plug_in}_{name}": value
                for plug_in in ("AWS", "ECS", "TRAFFIC", "RDS", "ELASTICACHE", "APPCONFIG")
                for name, value in (("ENDPOINT_URL", url), ("REGION", "us-east-1"))
            },
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _recorded(self, folder: Path) -> dict[str, str]:
        assert self.bundle is not None
        bundle = load_bundle(self.bundle)
        self.clock = VirtualClock(bundle.manifest.incident.end, time.time(), 1.0)
        config = folder / "autopilot.yaml"
        config.write_text(yaml.safe_dump(rehearsal_catalogue({(e.caller, e.callee) for e in bundle.edges})))
        return {
            "AUTOPILOT_CLOCK": str(self.clock),
            "AUTOPILOT_CONFIG": str(config),
            "AUTOPILOT_COLLECTORS": "replay",
            "AUTOPILOT_EXECUTORS": "rehearsal",
            "AUTOPILOT_REPLAY_DIR": str(self.bundle.resolve()),
        }

    def _await_ready(self, client: httpx.Client, api: "subprocess.Popen[str]", log: Path) -> None:
        give_up = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < give_up:
            if api.poll() is not None:
                raise DemoError(f"the API did not start:\n{_tail(log)}")
            try:
                if client.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise DemoError(f"the API did not get ready within {STARTS_WITHIN_S} s:\n{_tail(log)}")

    # --- the story ---

    def _send_alert(self, client: httpx.Client) -> str:
        payload = self._recorded_payload() if self.bundle else self.scenario.alert_payload(self.clock.now())
        answer = client.post("/webhooks/datadog", json=payload, headers={"X-AIOps-Token": self.token})
        if answer.status_code != 202 or not answer.json()["incident_id"]:
            raise DemoError(f"the webhook answered {answer.status_code}: {answer.text}")
        incident: str = answer.json()["incident_id"]
        self.out.rule("[bold]Alert")
        self.out.print(f"{escape(str(payload['title']))}\nPOST /webhooks/datadog -> 202, incident {incident}")
        return incident

    def _recorded_payload(self) -> dict[str, object]:
        assert self.bundle is not None
        alert = load_bundle(self.bundle).alert
        moment = str(int(VirtualClock(_moment(alert["occurred_at"]), 0, 1).origin.timestamp() * 1000))
        return {
            "title": f"[Triggered] {alert['title']}",
            "event_id": secrets.token_hex(8),
            "service": alert["service"],
            "transition": "Triggered",
            "cycle_key": alert["cycle_key"],
            "date": moment,
            "last_updated": moment,
        }

    def _story(self, client: httpx.Client, incident: str) -> int:
        after = 0
        while True:
            status, after = self._follow(client, incident, after)
            if status != "awaiting_decision":
                break
            report = client.get(f"/incidents/{incident}/report").raise_for_status().json()
            actions = client.get(f"/incidents/{incident}/actions").raise_for_status().json()
            if report["executions"]:
                self._show_execution(report["executions"][-1])
                if self.choice:
                    return self._end(report)
            else:
                self._show_analysis(Report.model_validate(report))
            self._show_options(actions)
            after = self._decide(client, incident, actions, after)
        report = client.get(f"/incidents/{incident}/report").raise_for_status().json()
        if report["executions"]:
            self._show_execution(report["executions"][-1])
        return self._end(report)

    def _follow(self, client: httpx.Client, incident: str, after: int) -> tuple[str, int]:
        """Print the timeline as it comes, until a decision is awaited or the incident is closed."""
        status = ""
        headers = {"Last-Event-ID": str(after)}
        with connect_sse(client, "GET", f"/incidents/{incident}/events", headers=headers, timeout=120) as source:
            for message in source.iter_sse():
                if not message.data:
                    continue
                after, event = int(message.id), message.json()
                self._tell(event)
                if event["kind"] == "status":
                    status = event["data"]["status"]
                    if status in ("awaiting_decision", "needs_attention"):
                        return status, after
        return status, after

    def _tell(self, event: Mapping[str, Any]) -> None:
        node = event["node"]
        if event["kind"] in QUIET or (event["kind"] == "verification" and event["message"] == self.last_reading):
            return
        self.last_reading = event["message"] if event["kind"] == "verification" else ""
        style = {"collector_finished": "cyan", "step_finished": "green", "step_undone": "yellow"}.get(event["kind"], "")
        if event["data"].get("failed") or event["data"].get("status") in ("failed", "unknown"):
            style = "red"
        name = f"[dim]{event['at'][11:19]} {node:<20}[/dim]" if node else f"[dim]{event['at'][11:19]} {'':<20}[/dim]"
        text = escape(event["message"])
        self.out.print(f"{name} " + (f"[{style}]{text}[/{style}]" if style else text))

    def _show_analysis(self, report: Report) -> None:
        t = TEXTS[report.language]
        cause = report.root_cause
        assert cause is not None
        lines = [*_headline(cause, t), *_reasons(cause, t)]
        if len(report.blamed) > 1:
            lines += ["", f"{t['together']}: {escape(', '.join(s.component for s in report.blamed))}"]
        if report.path:
            path = " -> ".join([report.path[0].cause, *(h.effect for h in report.path)])
            lines += ["", f"{t['causal_path']}: {escape(path)}"]
        lines += [f"{t['impact']}: {escape(i.name)} {i.value:,.6g} {escape(i.unit)}" for i in report.impact]
        lines += [f"[yellow]{t['gaps']}: {escape(g.source)}: {escape(g.detail)}[/yellow]" for g in report.gaps]
        if report.model_use:
            lines.append(f"[dim]{t['model_calls']}: {used(t, report.model_use)}[/dim]")
        self.out.print(Panel("\n".join(lines), title=t["root_cause"], border_style="magenta"))
        table = Table(title=f"{t['evidence']} ({len(report.evidence)})", show_lines=False)
        for column in ("id", "component", "kind", "what the telemetry shows"):
            table.add_column(column, overflow="fold")
        for f in report.evidence[:10]:
            table.add_row(f.id, escape(f.component), f.kind, escape(f.summary))
        self.out.print(table)

    def _show_options(self, actions: Mapping[str, Any]) -> None:
        table = Table(title=f"Options (plan {actions['plan_revision']})", show_lines=True)
        for column in ("", "remedy", "tools and parameters", "risk", "min"):
            table.add_column(column, overflow="fold")
        for number, option in enumerate(actions["options"], 1):
            steps = "\n".join(
                f"{s['operation']}({', '.join(f'{k}={v}' for k, v in s['params'].items())})"
                + (f"\n  cannot run: {s['infeasible']}" if s["infeasible"] else "")
                for s in option["steps"]
            )
            tried = f"\ntried: {option['tried']}" if option["tried"] else ""
            table.add_row(
                str(number),
                escape(f"{option['title']}\n{option['description']}{tried}"),
                escape(steps),
                option["risk"],
                f"{option['minutes']:g}",
            )
        self.out.print(table)
        if actions["note"]:
            self.out.print(escape(actions["note"]))

    def _decide(self, client: httpx.Client, incident: str, actions: Mapping[str, Any], after: int) -> int:
        possible = list(actions["choices"])
        choice = self.choice or Prompt.ask("Your decision", console=self.out, choices=possible, default=possible[0])
        if choice not in possible:
            raise DemoError(f"choice {choice} is not possible here; possible are: {', '.join(possible)}")
        hint = Prompt.ask("A hint for the next look", console=self.out) if choice == "re_analyze" else ""
        body = {"plan_revision": actions["plan_revision"], "choice": choice, "hint": hint}
        answer = client.post(f"/incidents/{incident}/decision", json=body)
        if answer.status_code != 202:
            self.out.print(f"[red]{answer.status_code}: {escape(answer.json()['detail'])}[/red]")
        return after

    def _show_execution(self, execution: Mapping[str, Any]) -> None:
        verification = execution["verification"]
        if verification["checks"]:
            table = Table(title=f"Before and after: {escape(execution['title'])}")
            for column in ("metric", "before", "after", "expected", ""):
                table.add_column(column, overflow="fold")
            for check in verification["checks"]:
                effect, status = check["effect"], check["status"].replace("_", " ")
                colour = "green" if status == "met" else "red"
                table.add_row(
                    escape(f"{effect['ref']['component']} {effect['ref']['metric']}"),
                    _number(check["before"]),
                    _number(check["after"]),
                    f"{effect['comparator']} {effect['value']:g}",
                    f"[{colour}]{status}[/{colour}]",
                )
            self.out.print(table)
        put_back = bool(execution["undone"]) and all(step["status"] == "succeeded" for step in execution["undone"])
        undone = ", and undone" if put_back else ", NOT undone" if execution["undone"] else ""
        verdict = verification["verdict"].replace("_", " ")
        colour = "green" if verdict == "resolved" else "yellow"
        self.out.print(Panel(f"[bold {colour}]{verdict}{undone}[/] {escape(verification['detail'])}", title="Verdict"))

    def _end(self, report: Mapping[str, Any]) -> int:
        self.out.print(
            f"The incident is [bold]{report['status'].replace('_', ' ')}[/bold]"
            + (f": {escape(report['status_reason'])}" if report["status_reason"] else ".")
        )
        if self.bundle:
            return 0 if report["root_cause"] else 1
        return 0 if report["status"] == "resolved" else 1


def _headline(cause: RootCause, t: Texts) -> list[str]:
    """What it is, how sure that is and how well founded, and what speaks against it."""
    facts = [confidence(t, cause), claims_verified(t, cause), f"{t['engine']} {author(t, cause.engine)}"]
    lines = [f"[bold]{escape(cause.title)}[/bold]", escape(" · ".join(filter(None, facts)))]
    if cause.engine_note:
        lines.append(f"[yellow]{escape(cause.engine_note)}[/yellow]")
    if cause.contradicts:
        lines.append(f"[bold yellow]{t['contradicts']}:[/] [yellow]{escape(cause.contradicts)}[/yellow]")
    return lines


def _reasons(cause: RootCause, t: Texts) -> list[str]:
    """How it came about, the claims with their marks, and what is new since the analysis before."""
    lines = ["", escape(cause.mechanism), ""]
    for claim in cause.claims:
        mark = f"[green]{t['verified']}[/green]" if claim.verified else f"[yellow]{t['not_verified']}[/yellow]"
        lines.append(f"- {escape(claim.text)} [dim]{escape(', '.join(claim.evidence))}[/dim] {mark}")
    changed = [f"- {escape(line)}" for line in cause.changed]
    return [*lines, *(["", f"{t['changed']}:", *changed] if changed else [])]


def rehearsal_catalogue(calls: set[tuple[str, str]]) -> dict[str, object]:
    """A catalogue for a recorded system: its services and calls, with names that only ``rehearsal`` will ever use."""
    names = sorted({name for call in calls for name in call})
    return {
        "environment": "recorded",
        "services": {
            name: {
                "depends_on": sorted(callee for caller, callee in calls if caller == name and callee != name),
                "ecs": {"cluster": "rehearsal", "service": name},
            }
            for name in names
        },
    }


@contextmanager
def _process(
    log: Path, environment: Mapping[str, str], module: str, *arguments: str
) -> Iterator["subprocess.Popen[str]"]:
    """A child that is gone when this ends: asked first, killed after five seconds."""
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, *arguments],
            env=dict(environment),
            cwd=log.parent,  # where no .env of the user's is: its keys and roles are none of the demo's business
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if module == "app.simulator" else errors,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to handle: children end in order
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process.stdout)


def _close(stream: IO[str] | None) -> None:
    if stream:
        stream.close()


def _credentials(url: str) -> tuple[str, str]:
    """An API key for this run, and a one-time sign-in for the browser."""

    async def both(connection: Connection) -> tuple[str, str]:
        key = await issue(connection, "key", "demo", "admin")
        return key, await issue(connection, "sign_in", "demo", "admin")

    return in_one_transaction(url, both)


def _bindable(port: int) -> int:
    """The port, or a free one for 0. Raises DemoError: whoever has it already would get what is meant for our API."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn: what has just ended is no obstacle
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise DemoError(f"port {port} {why}; choose another with --port, 0 picks a free one") from None
        bound: int = s.getsockname()[1]
        return bound


def _moment(text: object) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(str(text))


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"
