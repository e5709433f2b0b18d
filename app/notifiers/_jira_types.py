"""What of Jira's answers we read. Fields that are missing are empty, as no account sees everything."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from app.notifiers.base import TryAgain


class Answer(BaseModel):
    """Part of an answer; what else is in it is left out."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)


A = TypeVar("A", bound=Answer)


def parsed(kind: type[A], answer: Mapping[str, JsonValue], *, ambiguous: bool = False) -> A:
    """Raises TryAgain: this is not how Jira answers."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"]))
        raise TryAgain(
            f"Jira's answer is not as its REST API v3 has it ({where}). Check that AUTOPILOT_JIRA_URL is a Jira Cloud.",
            ambiguous=ambiguous,
        ) from None


class Named(Answer):
    """Something with an id and a name."""

    id: str = ""
    name: str = ""


# --- making issues ---


class IssueTypes(Answer):
    """Of a project: those that our account may make."""

    issue_types: tuple[Named, ...] = ()


class FieldMeta(Answer):
    """A field of the screen on which issues are made."""

    field_id: str
    name: str = ""
    required: bool = False
    has_default_value: bool = False
    allowed_values: tuple[Named, ...] = ()


class Screen(Answer):
    """What can be told when an issue is made."""

    fields: tuple[FieldMeta, ...] = ()


class Made(Answer):
    """A new issue."""

    key: str


# --- issues ---


class Category(Answer):
    """new, indeterminate or done, whatever a site calls its statuses."""

    key: str = ""


class Status(Answer):
    """Where an issue is in its workflow."""

    name: str = ""
    status_category: Category = Category()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.status_category.key == "done"


class Attachment(Answer):
    """A file."""

    filename: str = ""


class Linked(Answer):
    """The other end of a link."""

    key: str = ""


class IssueLink(Answer):
    """Between two issues; one of them is told."""

    inward_issue: Linked = Linked()
    outward_issue: Linked = Linked()


class IssueFields(Answer):
    """Those that are asked for."""

    status: Status = Status()
    attachment: tuple[Attachment, ...] = ()
    issuelinks: tuple[IssueLink, ...] = Field(default=(), alias="issuelinks")


class Issue(Answer):
    """One issue."""

    key: str = ""
    fields: IssueFields = IssueFields()
    properties: dict[str, JsonValue] = Field(default_factory=dict)


class Found(Answer):
    """The issues of a search."""

    issues: tuple[Issue, ...] = ()


# --- transitions ---


class TransitionField(Answer):
    """What a transition asks for."""

    required: bool = False
    has_default_value: bool = False
    allowed_values: tuple[Named, ...] = ()


class Transition(Answer):
    """A step that the workflow offers from where the issue is."""

    id: str
    to: Status = Status()
    fields: dict[str, TransitionField] = Field(default_factory=dict)


class Transitions(Answer):
    """All of them."""

    transitions: tuple[Transition, ...] = ()


# --- comments ---


class Property(Answer):
    """Ours, of a comment."""

    key: str = ""
    value: JsonValue = None


class Comment(Answer):
    """One comment."""

    id: str = ""
    properties: tuple[Property, ...] = ()


class Comments(Answer):
    """Of an issue."""

    comments: tuple[Comment, ...] = ()


class CommentsById(Answer):
    """With their properties."""

    values: tuple[Comment, ...] = ()
