"""The files that put the product on a machine."""

import os
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from app.environment import reference
from app.knowledge.embedding import how_to_get_wordllama
from app.pictures_png import KOREAN_FAMILIES
from tests.conftest import ROOT

SET = {"POSTGRES_PASSWORD": "x", "AUTOPILOT_DATADOG_WEBHOOK_TOKENS": "y" * 24}


def _compose() -> list[str] | None:
    """``docker compose``, or the stand-alone ``docker-compose``."""
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if found.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


COMPOSE = _compose()


@pytest.mark.skipif(COMPOSE is None, reason="neither `docker compose` nor `docker-compose` is installed")
def test_compose_file_is_valid_and_refuses_to_start_without_secrets() -> None:
    assert COMPOSE is not None
    valid = subprocess.run(
        [*COMPOSE, "config"], cwd=ROOT, env={**os.environ, **SET}, capture_output=True, text=True, check=False
    )
    assert valid.returncode == 0, valid.stderr
    services = yaml.safe_load(valid.stdout)["services"]
    assert set(services) == {"postgres", "serve", "worker"}
    assert services["worker"]["deploy"]["replicas"] == 2
    unset = subprocess.run([*COMPOSE, "config"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert unset.returncode != 0
    assert "POSTGRES_PASSWORD" in unset.stderr


def test_compose_passes_every_setting_that_a_container_can_use() -> None:
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-autopilot"]["environment"]
    own = {"DATABASE_URL", "AUTOPILOT_CONFIG"}  # compose decides on these
    local = {"AUTOPILOT_DATA_DIR", "AUTOPILOT_CLOCK", "AUTOPILOT_REPLAY_DIR"}  # for one machine, or the demo
    documented = re.findall(r"^([A-Z0-9_]+)=", reference(), re.MULTILINE)
    local |= {"AUTOPILOT_API_KEY"}  # a person's, for the command line
    passed = [n for n in documented if n not in own | local and not n.endswith("_ENDPOINT_URL")]
    credentials = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert set(composed) == {*passed, *own, *credentials}
    required = "AUTOPILOT_DATADOG_WEBHOOK_TOKENS"
    assert composed[required].startswith(f"${{{required}:?")
    for name in {*passed, *credentials} - {required}:
        assert composed[name] == f"${{{name}:-}}"


def test_the_image_has_what_settings_turn_on() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "'.[console,embeddings]'" in dockerfile
    assert "fonts-nanum" in dockerfile
    assert "NanumGothic" in KOREAN_FAMILIES  # as that package calls it


@pytest.mark.parametrize("machine", ["x86_64", "arm64", "aarch64"])
@pytest.mark.parametrize("python", [(3, 11), (3, 13), (3, 14)])
def test_what_is_said_of_wordllama_is_what_the_extra_installs(machine: str, python: tuple[int, int]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [marker] = [Requirement(line).marker for line in extras["embeddings"]]
    assert marker is not None
    installed = marker.evaluate({"python_version": ".".join(map(str, python)), "platform_machine": machine})
    assert ("pip install '.[embeddings]'" in how_to_get_wordllama(machine, python)) == installed


def test_nothing_names_a_registry_or_a_machine() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text()
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "uv.lock" in ignored
    assert ".env" in ignored
