"""Incidents with a known cause: folders with a bundle, ``expected.yml`` and, if there is one, an ``autopilot.yaml``.

``expected.yml`` (or ``.yaml``, or ``.json``) is described in ``tests/scenarios/README.md``. What it does not say is not
judged, and what it says in another spelling (``must-cite``, one word in the place of a list) is understood.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from app.catalogue import CatalogueError, load
from app.evaluation import EvaluationError, alert_of
from collectors.base import EcsService
from collectors.replay import Bundle, BundleError, load_bundle
from graph.catalogue import Catalogue, LoadBalancer, Service
from graph.llms.playbooks import Category
from graph.state import Alert

_NOBODY = {"", "none", "null", "nobody"}
_FILES = ("expected.yml", "expected.yaml", "expected.json")
_CATALOGUES = ("autopilot.yaml", "autopilot.yml")
_ARN = "arn:aws:elasticloadbalancing:eu-west-1:000000000000"


def _words(value: object) -> object:
    """A list of words, whatever YAML made of them: one word alone, a number, nothing."""
    if value is None:
        return ()
    many = value if isinstance(value, list) else [value]
    if any(isinstance(one, (dict, list)) for one in many):
        raise ValueError("this is a list of words: [one, two]")
    return tuple(str(one).strip() for one in many)


def _key(text: str) -> str:
    """Categories and operations as they are spelled here."""
    return text.strip().lower().replace("-", "_").replace(" ", "_")


def _keys(value: object) -> object:
    found = _words(value)
    return tuple(_key(one) for one in found) if isinstance(found, tuple) else found


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Keys = Annotated[tuple[str, ...], BeforeValidator(_keys)]


def folded(component: str) -> str:
    """A component's name, to be compared: in any case, with hyphens or underscores."""
    return component.strip().casefold().replace("_", "-")


class Expected(BaseModel):
    """The answer to a scenario. Which parts of it were given is in ``model_fields_set``: only they are judged."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    component: str | None = None
    components: Words = ()
    category: Keys = ()
    must_cite: Words = ()
    must_not_blame: Words = ()
    acceptable_operations: Keys = ()
    forbidden_operations: Keys = ()
    why: str = ""

    @model_validator(mode="before")
    @classmethod
    def _spelled_otherwise(cls, content: Any) -> Any:
        """``component`` may be a list, or a word for nobody."""
        if not isinstance(content, Mapping):
            raise ValueError("it holds no mapping; write `component: name of the cause`")
        found = {_key(str(key)): value for key, value in content.items()}
        named = found.get("component")
        if isinstance(named, list):
            found.pop("component")
            found["components"] = [*named, *_listed(found.get("components"))]
        elif isinstance(named, (str, int, float)):
            found["component"] = None if str(named).strip().lower() in _NOBODY else str(named).strip()
        if found.get("why") is None:
            found.pop("why", None)
        return found

    @property
    def tells_component(self) -> bool:
        """Whether it says whom to blame, if only that it is nobody."""
        return "component" in self.model_fields_set or bool(self.components)

    @property
    def culprits(self) -> tuple[str, ...]:
        """Whom to blame; none: nobody."""
        return tuple(dict.fromkeys([*([self.component] if self.component else []), *self.components]))

    @property
    def tells_operations(self) -> bool:
        """Whether it says what would be a good plan."""
        return "acceptable_operations" in self.model_fields_set

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that an answer can have."""
        return tuple(name for name in self.category if name in set(Category))


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Scenario:
    """One folder, read. ``remarks``: what of it was not understood, and what was done instead."""

    name: str
    bundle: Bundle
    alert: Alert
    expected: Expected
    catalogue: Catalogue
    remarks: tuple[str, ...] = ()


def folders(directory: Path) -> dict[str, Path]:
    """Each bundle at or below the directory, by its folder's path in it. Raises EvaluationError."""
    if not directory.is_dir():
        raise EvaluationError(f"{directory} is no folder; name one that holds bundles, e.g. tests/scenarios")
    found = {file.parent.relative_to(directory).as_posix(): file.parent for file in directory.rglob("bundle.json")}
    if not found:
        raise EvaluationError(f"{directory} holds no bundle.json: `autopilot export` writes bundles")
    return {directory.resolve().name if name == "." else name: found[name] for name in sorted(found)}


def read(name: str, folder: Path) -> Scenario:
    """The scenario of a folder. Raises EvaluationError where its bundle cannot be read."""
    try:
        bundle = load_bundle(folder)
    except (BundleError, OSError) as error:
        raise EvaluationError(str(error)) from None
    alert = alert_of(bundle)
    expected, remarks = _expected(folder)
    catalogue, more = _catalogue(folder, bundle, alert)
    return Scenario(name, bundle, alert, expected, catalogue, (*remarks, *_strangers(expected, bundle), *more))


# --- expected.yml -------------------------------------------------------------------------------------------


def _expected(folder: Path) -> tuple[Expected, tuple[str, ...]]:
    file = next((folder / name for name in _FILES if (folder / name).exists()), None)
    if file is None:
        return Expected(), ("there is no expected.yml, so nothing is judged",)
    try:
        content = _content(file)
        expected = Expected.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{part}: " for part in first["loc"][:1])
        said = first["msg"].removeprefix("Value error, ")
        return Expected(), (f"{file.name}: {where}{said}; nothing is judged until it is mended",)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:300]
        return Expected(), (f"{file.name} cannot be read ({said}); nothing is judged until it is mended",)
    unknown = [str(key) for key in content if _key(str(key)) not in Expected.model_fields]
    return expected, (f"{file.name}: {', '.join(unknown)} is not known, and ignored",) if unknown else ()


def _content(file: Path) -> dict[object, object]:
    """Raises OSError, ValueError, YAMLError."""
    text = file.read_text(encoding="utf-8-sig")
    content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    return {} if content is None else content


def _strangers(expected: Expected, bundle: Bundle) -> Iterator[str]:
    """What it names that cannot be answered."""
    known = {folded(name) for name in _components(bundle)}
    absent = [name for name in (*expected.culprits, *expected.must_not_blame) if folded(name) not in known]
    if absent:
        yield f"expected: {', '.join(absent)} does not occur in the recording"
    strange = [name for name in expected.category if name not in set(Category)]
    if strange:
        judged = f"{', '.join(expected.categories)} counts" if expected.categories else "it is not judged"
        yield f"expected: {', '.join(strange)} is no category of this product; {judged}"


# --- the catalogue ------------------------------------------------------------------------------------------


def _catalogue(folder: Path, bundle: Bundle, alert: Alert) -> tuple[Catalogue, tuple[str, ...]]:
    """The folder's own, or one that ``rehearsal`` can do everything on."""
    file = next((folder / name for name in _CATALOGUES if (folder / name).exists()), None)
    if file is None:
        return rehearsal_catalogue(bundle, alert), ()
    try:
        return load(file).catalogue(), ()
    except CatalogueError as error:
        said = " ".join(str(error).split())
        return rehearsal_catalogue(bundle, alert), (f"{said} Until then every service has resources of rehearsal.",)


def rehearsal_catalogue(bundle: Bundle, alert: Alert) -> Catalogue:
    """Everything that was recorded; each service of it with resources that exist in no cloud."""
    kinds = {edge.callee: edge.callee_kind for edge in bundle.edges if edge.callee_kind}
    speaks = {line.component for line in bundle.logs} | {span.component for span in bundle.spans}
    speaks |= {edge.caller for edge in bundle.edges} | {alert.service}
    waits: dict[str, set[str]] = {}
    sends: dict[str, set[str]] = {}
    for edge in bundle.edges:
        if edge.caller != edge.callee:
            (sends if edge.asynchronous else waits).setdefault(edge.caller, set()).add(edge.callee)
    services = {}
    for name in sorted(_components(bundle) | {alert.service}):
        # what neither calls anybody nor says anything is a database or a vendor, whatever nobody wrote down of it
        acts = kinds.get(name, "service" if name in speaks else "external") == "service"
        services[name] = Service(
            kind=kinds.get(name, ""),
            depends_on=tuple(sorted(waits.get(name, ()))),
            sends_to=tuple(sorted(sends.get(name, set()) - waits.get(name, set()))),
            ecs=EcsService(cluster="rehearsal", service=name) if acts else None,
            load_balancer=_balancer(name) if acts else None,
        )
    return Catalogue(environment="recorded", services=services)


def _balancer(service: str) -> LoadBalancer:
    return LoadBalancer(
        listener_rule_arn=f"{_ARN}:listener-rule/app/rehearsal/0/0/{service}",
        target_group_arn=f"{_ARN}:targetgroup/{service}/0",
        overflow_target_group_arn=f"{_ARN}:targetgroup/{service}-overflow/0",
    )


def _components(bundle: Bundle) -> set[str]:
    """Everything that has a name in the recording."""
    ends = {name for edge in bundle.edges for name in (edge.caller, edge.callee)}
    rows = {row.component for rows in (bundle.logs, bundle.spans, bundle.changes, bundle.statuses) for row in rows}
    return (
        ends | rows | {one.ref.component for one in bundle.series} | {span.peer for span in bundle.spans if span.peer}
    )
