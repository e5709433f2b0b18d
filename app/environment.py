"""Every environment variable there is, with its meaning: the text of ``.env.example``."""

from collections.abc import Iterator
from importlib import import_module

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from app.settings import Settings
from app.wiring import plug_ins
from graph.llms.openai_settings import Settings as OpenAISettings

HEAD = """# Every setting of AIOps Auto Pilot; `autopilot settings` prints this file.
# Copy it to .env and set what you need: a variable that is empty counts as not set.
"""


def reference() -> str:
    """The whole file."""
    sections: list[tuple[str, type[BaseSettings]]] = [
        ("The product", Settings),
        ("The model; without a key the rules engine answers", OpenAISettings),
    ]
    for package in ("collectors", "executors"):
        for name in plug_ins(package):
            found = getattr(import_module(f"{package}.{name}"), "Settings", None)
            if found:
                sections.append((f"{package.removesuffix('s').capitalize()} {name!r}", found))
    return HEAD + "".join(f"\n# --- {title} ---\n{_section(settings)}" for title, settings in sections)


def _section(settings: type[BaseSettings]) -> str:
    return "".join(_lines(settings))


def _lines(settings: type[BaseSettings]) -> Iterator[str]:
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        if field.description:
            yield f"# {field.description}\n"
        yield f"{variable}={_text(field.get_default(call_default_factory=False))}\n"


def _text(default: object) -> str:
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    text = str(default)
    return "" if text == "PydanticUndefined" else text
