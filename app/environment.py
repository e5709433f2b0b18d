"""Every environment variable there is, with its meaning: the text of ``.env.example``."""

from collections.abc import Iterator
from importlib import import_module

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from app.settings import Settings
from app.telemetry_settings import Settings as TelemetrySettings
from app.wiring import plug_ins
from graph.llms.openai_settings import Settings as OpenAISettings

HEAD = """# Every setting of AIOps Auto Pilot; `autopilot settings` prints this file.
# Copy it to .env and set what you need: a variable that is empty counts as not set.
"""


def reference() -> str:
    """The whole file."""
    return HEAD + "".join(f"\n# --- {title} ---\n{_section(settings)}" for title, settings in all_settings())


def all_settings() -> list[tuple[str, type[BaseSettings]]]:
    """Every Settings class there is, with what it is of: the product, the model, each plug-in."""
    sections: list[tuple[str, type[BaseSettings]]] = [
        ("The product", Settings),
        ("The model; without a key the rules engine answers", OpenAISettings),
        ("OpenTelemetry: where calls of the model are told to", TelemetrySettings),
    ]
    for package, title in (
        ("app.intake", "Sender"),
        ("collectors", "Collector"),
        ("executors", "Executor"),
        ("app.notifiers", "Notifier"),
    ):
        for name in plug_ins(package):
            found = getattr(import_module(f"{package}.{name}"), "Settings", None)
            if found:
                sections.append((f"{title} {name!r}", found))
    return sections


def variable_of(settings: type[BaseSettings], name: str) -> str:
    """The environment variable of a field, by its name or by its alias."""
    field = settings.model_fields.get(name)
    alias = field.validation_alias if field else name
    return str(alias or f"{settings.model_config.get('env_prefix', '')}{name}").upper()


def mistakes(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each mistake in the environment, as variable and message.

    A field's name alone does not say whose it is, and every plug-in's class has the same name: they are read again,
    and those count that make the same mistakes.
    """
    told = _told(error)
    guilty = [settings for _, settings in all_settings() if _refusal(settings) == told]
    for field, message in told:
        for variable in dict.fromkeys(variable_of(s, field) for s in guilty) or (field.upper(),):
            yield variable, message.removeprefix("Value error, ")


def _refusal(settings: type[BaseSettings]) -> list[tuple[str, str]] | None:
    try:
        settings()
    except ValidationError as error:
        return _told(error)
    return None


def _told(error: ValidationError) -> list[tuple[str, str]]:
    return [(str(e["loc"][0]) if e["loc"] else "", e["msg"]) for e in error.errors(include_input=False)]


def _section(settings: type[BaseSettings]) -> str:
    return "".join(_lines(settings))


def _lines(settings: type[BaseSettings]) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        if field.description:
            yield f"# {field.description}\n"
        yield f"{variable_of(settings, name)}={_text(field.get_default(call_default_factory=False))}\n"


def _text(default: object) -> str:
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    text = str(default)
    return "" if text == "PydanticUndefined" else text
