"""A small honest model without a model: it reads the fenced data of a brief and says what stands there.

It lets the demo and the tests go the way of a model without a key: ``python -m app.simulator.openai_reader --port N``.
It knows no scenario: what it names is the first suspect, what it claims are the summaries of findings, and what it
plans is what the schema of the answer allows.
"""

import argparse
import json
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from app.simulator.openai import Reply, Request, openai_server, say

Record = Mapping[str, Any]

_FENCE = re.compile(r'<data name="([^"]+)"[^>]*>\n(.*?)\n</data>', re.DOTALL)
_MOST_CLAIMS = 3
_LONGEST_QUOTE = 80  # characters
_CATEGORY_OF_WORDS: Sequence[tuple[str, str]] = (
    (r"connection pool|hikari|pool\.(pending|active)|connection is not available", "connection_pool_exhaustion"),
    (r"rate.?limit|too many requests|\b429\b", "rate_limited_dependency"),
    (r"out of memory|oom|heap", "memory_exhaustion"),
    (r"certificate|x509", "expired_certificate"),
    (r"nullpointer|typeerror|exception", "code_fault"),
    (r"cpu", "cpu_saturation"),
    (r"timed? ?out|latency", "slow_dependency"),
)


def main() -> None:
    """Serve until SIGINT; the first line on standard output tells the URL for OPENAI_BASE_URL. Any key will do."""
    parser = argparse.ArgumentParser(prog="python -m app.simulator.openai_reader", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    with suppress(KeyboardInterrupt), openai_server(read_brief, port=parser.parse_args().port) as server:
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        threading.Event().wait()


def read_brief(request: Request) -> Reply:
    """A script for ``openai_server``: the answer that the brief in the last message suggests."""
    fences = _fences(str(request["messages"][-1]["content"]))
    if "menu" in fences:
        return say({"options": _options(fences, _schema(request))})
    return say(_cause(fences))


def _fences(brief: str) -> dict[str, list[Record]]:
    return {name: [json.loads(line) for line in lines.splitlines()] for name, lines in _FENCE.findall(brief)}


def _schema(request: Request) -> Record:
    """Of the answer, wherever the client put it."""
    shape = request.get("response_format", {}).get("json_schema")
    if shape:
        schema: Record = shape["schema"]
        return schema
    system = str(request["messages"][0]["content"])
    told: Record = json.loads(system[system.rindex("\n{") :])
    return told


# --- the analysis ---


def _cause(fences: Mapping[str, list[Record]]) -> Record:
    suspects, findings = fences.get("suspects", []), fences.get("findings", [])
    unsure = any(record.get("too unsure to name a cause") for record in fences.get("assessment", []))
    if not suspects or unsure:
        return _nobody()
    first, *others = suspects
    names = set(first.get("findings", ()))
    cited = [finding for finding in findings if finding["id"] in names] or findings
    component = str(first["component"])
    path = [hop.split(" -> ") for hop in first.get("path", ())]
    claims = [_claim(finding) for finding in cited[:_MOST_CLAIMS]]
    told = [str(claim["text"]) for claim in claims]
    return {
        "component": component,
        "category": _category(first, cited),
        "claims": claims,
        "path": [component, *(effect for _, effect in path)],
        "title": told[0] if told else component,
        "mechanism": " ".join(told[:2]),
        "impact": "",
        "rivals": [
            {
                "component": rival["component"],
                "speaks_for": str(rival.get("why", "")),
                "speaks_against": "It comes later.",
            }
            for rival in others[:2]
        ],
        "unknowns": [
            {"text": f"{gap['source']} could not be read.", "read": gap["source"]} for gap in fences.get("gaps", [])[:3]
        ],
        "confidence": "medium",
    }


def _nobody() -> Record:
    return {
        "component": None,
        "category": "unknown",
        "claims": [],
        "path": [],
        "title": "The evidence singles nobody out",
        "mechanism": "",
        "impact": "",
        "rivals": [],
        "unknowns": [],
        "confidence": "inconclusive",
    }


def _claim(finding: Record) -> Record:
    """The quote is a beginning, in whole words: a long summary was cut for the brief."""
    summary = str(finding["summary"])
    return {"text": summary, "evidence": [finding["id"]], "quote": summary[:_LONGEST_QUOTE].rpartition(" ")[0]}


def _category(suspect: Record, findings: Sequence[Record]) -> str:
    """The first kind of failure whose words occur in what is cited."""
    if suspect.get("change"):
        return "bad_deploy"
    words = json.dumps(findings, ensure_ascii=False).lower()
    return next((category for pattern, category in _CATEGORY_OF_WORDS if re.search(pattern, words)), "unknown")


# --- the plan ---


def _options(fences: Mapping[str, list[Record]], schema: Record) -> list[Record]:
    """The first operation of the menu that changes something and acts on the component at fault alone."""
    component = next((str(cause.get("component")) for cause in fences.get("root cause", [])), "")
    looks = {entry["operation"] for entry in fences["menu"] if entry.get("only looks")}
    steps = schema["properties"]["options"]["items"]["properties"]["steps"]["items"]["anyOf"]
    for step in steps:
        operation = step["properties"]["operation"]["enum"][0]
        declared: Record = step["properties"]["params"]["properties"]
        if operation in looks or component not in _services(declared):
            continue
        why = [finding["id"] for finding in fences.get("findings", ()) if finding["component"] == component]
        return [
            {
                "title": f"{operation.replace('_', ' ').capitalize()}: {component}",
                "description": f"It acts on {component}.",
                "intent": "mitigate",
                "benefit": "medium",
                "why": why[:3],
                "steps": [{"operation": operation, "params": _params(declared, component)}],
            }
        ]
    return []


def _services(declared: Record) -> Sequence[str]:
    services: Sequence[str] = declared.get("service", {}).get("enum", ())
    return services


def _params(declared: Record, component: str) -> Record:
    return {name: _value(name, schema, component) for name, schema in declared.items()}


def _value(name: str, schema: Record, component: str) -> object:
    """A value that the schema and the bounds in its description allow."""
    if name == "service":
        return component
    if schema.get("enum"):
        return schema["enum"][0]
    bounds = dict(re.findall(r"(default|minimum) (\[.*?\]|[^\s;]+)", str(schema.get("description", ""))))
    told = bounds.get("default") or bounds.get("minimum")
    if told is not None:
        try:
            return json.loads(told)
        except ValueError:
            return told
    return {"integer": 1, "number": 1.0, "boolean": False, "array": []}.get(str(schema.get("type")), "")


if __name__ == "__main__":
    main()
