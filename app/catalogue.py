"""Reads ``autopilot.yaml``: the service catalogue and the policy. Errors name file, line and the mend."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.security import Role
from executors.base import Risk
from graph.catalogue import Catalogue, Service

DEFAULT_ROLES: dict[Risk, Role] = {
    "none": "responder",
    "low": "responder",
    "medium": "responder",
    "high": "admin",
}


class CatalogueError(Exception):
    """``autopilot.yaml`` cannot be used; the text has file, line and what to do."""


class Policy(BaseModel):
    """Who may approve what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: dict[Risk, Role] = Field(
        default_factory=dict, description="The role that approves each risk; unnamed ones keep their default"
    )


class AutopilotYaml(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str = "production"
    services: dict[str, Service] = Field(default_factory=dict)
    policy: Policy = Policy()

    def catalogue(self) -> Catalogue:
        """The services."""
        return Catalogue(environment=self.environment, services=self.services)

    def roles(self) -> dict[Risk, Role]:
        """The role for every risk."""
        return {**DEFAULT_ROLES, **self.policy.roles}


def load(path: Path | None) -> AutopilotYaml:
    """The file's content; an empty catalogue where no file is set. Raises CatalogueError."""
    if path is None:
        return AutopilotYaml()
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text) or {}
    except FileNotFoundError:
        raise CatalogueError(f"{path}: there is no such file. Set AUTOPILOT_CONFIG to your autopilot.yaml.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(
            f"{path}:{line}: this is no YAML: {error.problem}. Mend the line and start again."
        ) from None
    try:
        parsed = AutopilotYaml.model_validate(content)
    except ValidationError as error:
        raise CatalogueError("\n".join(_sentences(path, tree, error))) from None
    _check_dependencies(path, tree, parsed)
    return parsed


def _sentences(path: Path, tree: yaml.Node | None, error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"])) or "the file"
        mend = "Remove it, or correct its spelling." if problem["type"] == "extra_forbidden" else "Correct the value."
        yield f"{path}:{_line(tree, problem['loc'])}: {where}: {problem['msg']}. {mend}"


def _check_dependencies(path: Path, tree: yaml.Node | None, parsed: AutopilotYaml) -> None:
    for name, service in parsed.services.items():
        for index, dependency in enumerate(service.depends_on):
            if dependency not in parsed.services:
                line = _line(tree, ("services", name, "depends_on", index))
                raise CatalogueError(
                    f"{path}:{line}: services.{name}.depends_on: {dependency!r} is not a service of this catalogue."
                    f" Add it under services:, even if it has no resources ({dependency}: {{}})."
                )


def _line(node: yaml.Node | None, path: tuple[int | str, ...]) -> int:
    """The line of the deepest node on the path that exists."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
