"""What is made of the model's settings, and what a process without a key never loads."""

import os
import subprocess
import sys

import pytest

from app.settings import Settings
from app.wiring import create_analyst
from graph.llms.rules import RulesAnalyst
from tests.conftest import ROOT
from tests.graph.llms.chats import MASKER

LOOK = """
import sys
from app.settings import Settings
from app.wiring import create_analyst
from graph.masking import Masker
analyst, _ = create_analyst(Masker(b"k"), Settings())
heavy = ("openai", "opentelemetry.sdk", "opentelemetry.exporter", "langgraph")
print(analyst.name, [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "rules []"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "rules []"),
        ({"OPENAI_API_KEY": "sk-test"}, "gpt-4o ['openai']"),
    ],
)
def test_nothing_is_loaded_that_is_not_used(environment: dict[str, str], expected: str) -> None:
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == expected


async def test_without_a_key_the_rules_engine_answers_alone() -> None:
    analyst, close = create_analyst(MASKER, Settings())
    assert isinstance(analyst, RulesAnalyst)
    await close()


async def test_with_a_key_the_model_is_told_to_whom_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    analyst, close = create_analyst(MASKER, Settings())
    assert analyst.name == "gpt-4o"
    await close()
