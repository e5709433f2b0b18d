"""Reads ``autopilot.yaml``: the service catalogue and the policy. Errors name file, line and the mend."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.intake.correlate import Correlation
from collectors.base import Declared, McpServer
from graph.catalogue import Catalogue, Service, Team
from graph.masking import MaskPattern
from graph.policy import Policy
from graph.state import Role, Severity

SHAPES = {
    "tuple_type": "this is a list: [one, two]",
    **dict.fromkeys(("dict_type", "model_type", "mapping_type"), "this is a mapping: {name: value}, or {} for nothing"),
}
"""What YAML calls the types that pydantic names after Python."""
Place = tuple[int | str, ...]  # in the file: keys and indices from its root


class CatalogueError(Exception):
    """``autopilot.yaml`` cannot be used; the text has file, line and what to do."""


class Operator(BaseModel):
    """A person who decides: as which role, in which team, and who that is in Slack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role = "responder"
    team: str = ""
    slack: tuple[str, ...] = Field(default=(), description="User ids, e.g. U024BE7LH")


class GenericWebhook(BaseModel):
    """How to read one tool's JSON: a JMESPath expression for each field of an alert."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alerts: str = Field(
        default="@", description="The list of alerts in the payload, or one alert; all others from there"
    )
    title: str
    service: str = ""
    severity: str = ""
    severities: dict[str, Severity] = Field(default_factory=dict, description="Their words for ours: {page: critical}")
    state: str = ""
    resolved: tuple[str, ...] = Field(
        default=("resolved", "ok", "recovered", "closed", "normal"), description="Values of `state`, in any case"
    )
    occurred_at: str = ""
    changed_at: str = ""
    key: str = Field(default="", description="What tells one alert of this tool from another, from trigger to recovery")
    rule: str = ""
    delivery_id: str = Field(default="", description="From the whole payload: the same for every re-send")
    url: str = ""
    text: str = ""
    resources: dict[str, str] = Field(default_factory=dict, description="What it watches: {host: labels.host}")


class Masking(BaseModel):
    """What is masked besides the usual secrets and personal data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patterns: tuple[MaskPattern, ...] = Field(default=(), description="This site's own: {name: order-id, regex: …}")


class AutopilotYaml(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str = "production"
    services: dict[str, Service] = Field(default_factory=dict)
    teams: dict[str, Team] = Field(
        default_factory=dict, description="Who owns services and is told of their incidents, by name"
    )
    policy: Policy = Policy()
    operators: dict[str, Operator] = Field(
        default_factory=dict, description="People by name; an API key of that name is the same person"
    )
    webhooks: dict[str, GenericWebhook] = Field(
        default_factory=dict, description="Tools without a sender of their own: POST /webhooks/generic/<name>"
    )

    correlation: Correlation = Correlation()
    mcp: dict[str, McpServer] = Field(default_factory=dict, description="MCP servers whose tools are read as a source")

    masking: Masking = Masking()

    def declared(self) -> Declared:
        """What it says of sources."""
        groups = (group for service in self.services.values() for group in service.aws.log_groups)
        return Declared(mcp=self.mcp, log_groups=tuple(dict.fromkeys(groups)))

    def catalogue(self) -> Catalogue:
        """The services."""
        return Catalogue(environment=self.environment, services=self.services, teams=self.teams)


def load(path: Path | None) -> AutopilotYaml:
    """The file's content; an empty catalogue where no file is set. Raises CatalogueError."""
    if path is None:
        return AutopilotYaml()
    tree, content = _parse(path, _read(path))
    _check_duplicates(path, tree)
    try:
        parsed = AutopilotYaml.model_validate(content)
    except ValidationError as error:
        raise CatalogueError("\n".join(_sentences(path, tree, error))) from None
    _check_services(path, tree, parsed)
    _check_teams(path, tree, parsed)
    _check_escalation(path, tree, parsed)
    _check_slack_ids(path, tree, parsed)
    return parsed


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogueError(f"{path}: there is no such file. Set AUTOPILOT_CONFIG to your autopilot.yaml.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CatalogueError(f"{path}:{line}: this is not UTF-8. Save the file as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise CatalogueError(
            f"{str(path)!r} cannot be read: {why}. Set AUTOPILOT_CONFIG to your autopilot.yaml."
        ) from None


def _parse(path: Path, text: str) -> tuple[yaml.Node | None, object]:
    """The nodes, which know their lines, and the content."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(
            f"{path}:{line}: this is no YAML: {error.problem}. Mend the line and start again."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a character, or a date, that cannot be
        raise CatalogueError(
            f"{path}: this is no YAML: {' '.join(str(error).split())}. Mend it and start again."
        ) from None


def _check_duplicates(path: Path, tree: yaml.Node | None) -> None:
    """YAML itself would silently take the last of two equal keys."""
    for mapping in _mappings(tree, set()):
        first: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if str(key.value) in first:
                raise CatalogueError(
                    f"{path}:{line}: {key.value!r} stands here twice, first in line {first[str(key.value)]}."
                    " Remove one of them."
                )
            first[str(key.value)] = line


def _mappings(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.MappingNode]:
    """Every mapping below the node, once: an alias is the node of its anchor."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mappings(item, seen)


def _sentences(path: Path, tree: yaml.Node | None, error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"])) or "the file"
        mend = "Remove it, or correct its spelling." if problem["type"] == "extra_forbidden" else "Correct the value."
        said = SHAPES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        yield f"{path}:{_line(tree, problem['loc'])}: {where}: {said}. {mend}"


def _check_services(path: Path, tree: yaml.Node | None, parsed: AutopilotYaml) -> None:
    """A service that is misspelt would be called by nobody, and protected by nothing."""
    for place, service in _named_services(parsed):
        if service not in parsed.services:
            where = ".".join(map(str, place[:-1]))
            raise CatalogueError(
                f"{path}:{_line(tree, place)}: {where}: {service!r} is not a service of this catalogue."
                f" Add it under services:, even if it has no resources ({service}: {{}})."
            )


def _named_services(parsed: AutopilotYaml) -> Iterator[tuple[Place, str]]:
    for name, service in parsed.services.items():
        yield from _each(("services", name, "depends_on"), service.depends_on)
        yield from _each(("services", name, "sends_to"), service.sends_to)
    yield from _each(("policy", "protected_services"), parsed.policy.protected_services)
    for index, window in enumerate(parsed.policy.freeze_windows):
        yield from _each(("policy", "freeze_windows", index, "services"), window.services)


def _check_teams(path: Path, tree: yaml.Node | None, parsed: AutopilotYaml) -> None:
    """A team that is misspelt would never hear of anything."""
    for place, team in _named_teams(parsed):
        if team not in parsed.teams:
            raise CatalogueError(
                f"{path}:{_line(tree, place)}: {'.'.join(map(str, place))}: {team!r} is not one of teams:"
                f" ({', '.join(sorted(parsed.teams)) or 'there are none'}). Add it there, or correct its spelling."
            )


def _named_teams(parsed: AutopilotYaml) -> Iterator[tuple[Place, str]]:
    """Owners are free words where no teams are declared."""
    owners = ((("services", name, "owner"), service.owner) for name, service in parsed.services.items())
    nexts = ((("teams", name, "next"), team.next) for name, team in parsed.teams.items())
    default = (("policy", "messages", "default_team"), parsed.policy.messages.default_team)
    yield from ((place, team) for place, team in (*(owners if parsed.teams else ()), *nexts, default) if team)


def _check_escalation(path: Path, tree: yaml.Node | None, parsed: AutopilotYaml) -> None:
    """A line of teams has an end: whoever was told and did not decide is not told for ever."""
    for first in parsed.teams:
        line = [first]
        while (following := parsed.teams[line[-1]].next) and following not in line:
            line.append(following)
        if following:
            place: Place = ("teams", line[-1], "next")
            raise CatalogueError(
                f"{path}:{_line(tree, place)}: {'.'.join(map(str, place))}: the line {' -> '.join([*line, following])}"
                " goes round in a circle. Leave out `next` at the team that is told last."
            )


def _each(place: Place, values: tuple[str, ...]) -> Iterator[tuple[Place, str]]:
    yield from (((*place, index), value) for index, value in enumerate(values))


def _check_slack_ids(path: Path, tree: yaml.Node | None, parsed: AutopilotYaml) -> None:
    """One person under two names could approve twice."""
    known: dict[str, str] = {}
    for name, operator in parsed.operators.items():
        for place, slack_id in _each(("operators", name, "slack"), operator.slack):
            if known.setdefault(slack_id, name) != name:
                raise CatalogueError(
                    f"{path}:{_line(tree, place)}: operators.{name}.slack: {slack_id} is {known[slack_id]} already."
                    " Name each person once."
                )


def _line(node: yaml.Node | None, path: Place) -> int:
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
