"""Playbooks as data: by what a kind of failure is known, how it works, and what helps against it.

``graph/playbooks/categories`` holds one file for each category, ``remedies.yml`` the ways to act that they name,
``conditions.yml`` what decides whether one helps or harms, and ``operations.yml`` what each operation does in words.
All is checked as it is loaded. Texts take ``{component}``, the component at fault, and ``{service}``, the one a remedy
acts on. They hold no numbers: every number shown comes from the evidence.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, field_validator

from graph.llms.korean import Word
from graph.state import FindingKind, Intent, Language

FOLDER = Path(__file__).parents[1] / "playbooks"
TWICE_THE_TASKS = "twice the desired tasks"
"""Stands for a desired count that depends on how many tasks there are now."""
EXECUTIONS_BEFORE = "the executions of before"
"""Stands for as many concurrent executions as a function had before the trouble."""
VERSION_BEFORE = "the version before"
"""Stands for the published version before the one that was deployed."""
OWN_TARGET_GROUP = "its own target group"
"""Stands for the target group that the catalogue names."""
ComponentKind = Literal["service", "database", "cache", "queue", "external"]


class PlaybookError(ValueError):
    """A file of playbooks cannot be used; the text names the file, the place in it, and what is wrong."""


class Category(StrEnum):
    """The kinds of failure the product knows remedies for."""

    CONNECTION_POOL_EXHAUSTION = "connection_pool_exhaustion"
    TRAFFIC_SURGE = "traffic_surge"
    BAD_DEPLOY = "bad_deploy"
    BAD_CONFIGURATION = "bad_configuration"
    CPU_SATURATION = "cpu_saturation"
    MEMORY_EXHAUSTION = "memory_exhaustion"
    RATE_LIMITED_DEPENDENCY = "rate_limited_dependency"
    SLOW_DEPENDENCY = "slow_dependency"
    UNHEALTHY_TASKS = "unhealthy_tasks"
    CODE_FAULT = "code_fault"
    MISSING_CALLS = "missing_calls"
    DEPENDENCY_OUTAGE = "dependency_outage"
    DATABASE_DEGRADATION = "database_degradation"
    CACHE_FAILURE = "cache_failure"
    QUEUE_BACKLOG = "queue_backlog"
    CONCURRENCY_LIMIT = "concurrency_limit"
    DISK_FULL = "disk_full"
    NETWORK_FAULT = "network_fault"
    EXPIRED_CERTIFICATE = "expired_certificate"
    DNS_FAILURE = "dns_failure"
    LLM_PROVIDER_OUTAGE = "llm_provider_outage"
    PROMPT_REGRESSION = "prompt_regression"
    UNKNOWN = "unknown"


class Data(BaseModel):
    """What a file holds; a key that is not known is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(Data):
    """The same said in each language, with ``{names}`` to fill in; Korean particles as ``{name:이/가}``."""

    en: str
    ko: str

    def filled(self, language: Language, **names: object) -> str:
        """In that language, with the names in their places."""
        template = self.ko if language == "ko" else self.en
        return template.format_map({name: Word(value) for name, value in names.items()})


class Sign(Data):
    """What one finding may show. All that is given must hold."""

    because: str = Field(description="Why it shows that")
    words: tuple[str, ...] = Field(min_length=1, description="Regular expressions in any case, one of which occurs")
    but_not: tuple[str, ...] = Field(default=(), description="None of which may occur")
    kinds: tuple[FindingKind, ...] = ()
    of: tuple[ComponentKind, ...] = Field(default=(), description="What the suspect must be")
    rose: float | None = Field(default=None, gt=0, description="At least this factor on the baseline, if there is one")
    fell: float | None = Field(default=None, gt=0, description="At most this factor on the baseline")
    at_least: float | None = Field(default=None, gt=0, description="A share of 1 that is reached")

    @field_validator("words", "but_not")
    @classmethod
    def _compiles(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for word in words:
            try:
                re.compile(word)
            except re.error as error:
                raise ValueError(f"{word!r} is no regular expression: {error}") from None
        return words

    @cached_property
    def _words(self) -> re.Pattern[str]:
        return re.compile("|".join(self.words), re.IGNORECASE)

    @cached_property
    def _but_not(self) -> re.Pattern[str] | None:
        return re.compile("|".join(self.but_not), re.IGNORECASE) if self.but_not else None

    def said_in(self, text: str) -> bool:
        """Whether the text has one of the words, and none of those that it may not have."""
        return self._words.search(text) is not None and not (self._but_not and self._but_not.search(text))


class Symptom(Sign):
    """A sign of one kind of failure."""

    weight: float = Field(
        gt=0,
        le=7,
        description="6: only this failure says so; 4: typical of it; 2: others show it too; 1: no more than a hint",
    )


Condition = Literal[
    "deployed_shortly_before",
    "deployed_right_before",
    "deployed_before",
    "configured",
    "callers_changed",
    "rerouted",
    "job_started",
    "surge",
    "holds_data",
    "waits_for_other",
    "starts_fail",
    "overloaded",
    "full",
    "computes",
    "slower",
    "locked",
    "unanswered",
    "connections_used_up",
    "stuck",
    "failing_over",
    "over_limit",
    "one_instance",
    "host_fails",
    "primary_fails",
    "target_group_fails",
    "reservation_reached",
    "prompt_changed",
    "model_changed",
    "runs_as_function",
]
"""What decides whether a remedy helps against this failure, or harms; ``conditions.yml`` says how each is known."""


class Known(Data):
    """How a condition is known, and what a person is told where it speaks against a remedy."""

    seen_on: Literal["service", "both"] = Field(
        default="service", description="Where its signs are looked for: what is acted on, or the component at fault too"
    )
    in_changes: bool = Field(default=False, description="Its signs count in changes right before the trouble only")
    told: Text
    signs: tuple[Sign, ...] = ()


class Step(Data):
    """One operation of a remedy; ``service`` is filled in. An optional one may be left out."""

    operation: str
    params: Mapping[str, JsonValue] = Field(default_factory=dict)
    optional: bool = False


class Remedy(Data):
    """One way to act: on the failing component itself, on the caller that must spare it, or on one that changed."""

    title: Text
    description: Text
    steps: tuple[Step, ...] = Field(min_length=1)
    elsewhere: tuple[tuple[Step, ...], ...] = Field(
        default=(),
        description="The same for a service that runs on something else; the first that the catalogue allows",
    )
    acts_on: Literal["component", "caller", "changed_caller"] = "component"
    unless: tuple[Condition, ...] = Field(default=(), description="Any of which makes it do harm, whatever fails")

    @property
    def ways(self) -> tuple[tuple[Step, ...], ...]:
        """The steps, by what a service runs on."""
        return (self.steps, *self.elsewhere)


class Use(Data):
    """What a remedy is to one kind of failure."""

    remedy: str
    because: str = Field(min_length=1, description="By what mechanism it helps against this failure")
    intent: Intent
    benefit: float = Field(ge=0, le=1, description="How much of the trouble it should take away")
    needs: tuple[Condition, ...] = Field(default=(), description="All of which it needs to be of use")
    unless: tuple[Condition, ...] = Field(default=(), description="Any of which makes it useless or harmful")


ByChange = Literal["never", "configuration_naming_it", "naming_it", "just_before", "any"]
"""Which change of the component, shortly before the trouble, is the better explanation of it: none (it has a reason
outside), one that names what fails, one right before, or any."""


class Playbook(Data):
    """One kind of failure."""

    title: Text
    mechanism: Text
    explained_by_change: ByChange
    symptoms: tuple[Symptom, ...] = ()
    questions: tuple[Text, ...] = Field(default=(), description="What a person looks at by hand")
    remedies: tuple[Use, ...] = ()


class Told(Data):
    """An operation in words; without ``undone`` what it changes is told to be put back, or not, by its menu entry."""

    does: Text
    without: Text | None = Field(
        default=None, description="What is said instead where a param that ``does`` names is null"
    )
    undone: Text | None = None


# --- loading ----------------------------------------------------------------------------------------------


T = TypeVar("T")


def playbooks_in(folder: Path, known: Mapping[str, Remedy]) -> dict[Category, Playbook]:
    """Every category's playbook. Raises PlaybookError."""
    found: dict[Category, Playbook] = {}
    for category in Category:
        path = folder / f"{category.value}.yml"
        found[category] = playbook = _read(path, Playbook)
        unknown = [use.remedy for use in playbook.remedies if use.remedy not in known]
        if unknown:
            raise PlaybookError(f"{path.name}: remedies: {', '.join(unknown)} is not in remedies.yml")
    strangers = sorted({path.stem for path in folder.glob("*.yml")} - {category.value for category in Category})
    if strangers:
        raise PlaybookError(f"{strangers[0]}.yml: there is no such category")
    return found


def _read(path: Path, kind: type[T]) -> T:
    """One file as the type that it is to hold."""
    adapter: TypeAdapter[T] = TypeAdapter(kind)
    try:
        return adapter.validate_python(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise PlaybookError(f"{path.name}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise PlaybookError(f"{path.name}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PlaybookError(f"{path.name}: {where}: {first['msg']}") from None


NAME = Annotated[str, Field(pattern=r"^[a-z_]+$")]
CONDITIONS: Mapping[Condition, Known] = _read(FOLDER / "conditions.yml", dict[Condition, Known])
REMEDIES: Mapping[str, Remedy] = _read(FOLDER / "remedies.yml", dict[NAME, Remedy])
OPERATIONS: Mapping[str, Told] = _read(FOLDER / "operations.yml", dict[NAME, Told])
PHRASES: Mapping[str, Text] = _read(FOLDER / "phrases.yml", dict[NAME, Text])
PLAYBOOKS: Mapping[Category, Playbook] = playbooks_in(FOLDER / "categories", REMEDIES)


def known_category(name: str) -> Category:
    """The category of that name; ``unknown`` if there is none."""
    return Category(name) if name in set(Category) else Category.UNKNOWN


def say(phrase: str, language: Language, **names: object) -> str:
    """A sentence of ``phrases.yml``."""
    return PHRASES[phrase].filled(language, **names)


def joined(sentences: Sequence[str]) -> str:
    """Sentences one after the other, without those that are empty."""
    return " ".join(sentence for sentence in sentences if sentence)
