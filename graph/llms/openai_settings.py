"""The model's settings, apart from its client: a process without a key never imports the client."""

from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ProfileName = Literal["openai", "azure", "vllm", "ollama", "compatible"]
Parameter = Literal["tools", "strict", "parallel_tool_calls", "max_completion_tokens", "max_tokens"]
Rung = Literal["strict", "schema", "json_object", "text"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
"""How an answer's shape is asked for, from the firmest to the loosest: a JSON schema that is enforced; one that is
known; any JSON, with the schema in the prompt; text, with the schema in the prompt, from which the JSON is taken."""


class Settings(BaseSettings):
    """``OPENAI_<NAME>``: the names that everybody uses."""

    model_config = SettingsConfigDict(
        env_prefix="OPENAI_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    api_key: SecretStr | None = Field(default=None, description="A key; any word for a local server that asks for none")
    base_url: str = Field(
        default="https://api.openai.com/v1",
        description="Another server that speaks chat completions; ends in /v1 (Azure: in /openai/v1)",
    )
    model: str = Field(default="gpt-4o", min_length=1, description="A chat model; on Azure the name of its deployment")
    profile: ProfileName | None = Field(
        default=None,
        description="How the server differs: openai, azure, vllm, ollama, compatible; guessed from the URL",
    )
    api_version: str = Field(default="", description="Only for Azure's older surface, e.g. 2024-10-21")
    timeout_s: float = Field(default=60.0, gt=0, description="For one answer, retry included")
    max_completion_tokens: int = Field(
        default=4_000, ge=256, le=1_000_000, description="The longest answer; also bounds its cost"
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Sent only if set; not every model takes it"
    )
    reasoning_effort: str = Field(
        default="", description="Sent only if set; for models that think first: low, medium, …"
    )
    structured_output: Rung | None = Field(
        default=None,
        description="How answers are asked for at first: strict, schema, json_object, text; default by profile",
    )
    leave_out: Annotated[tuple[Parameter, ...], NoDecode] = Field(
        default=(),
        description="What the server does not take: tools, strict (of tools), parallel_tool_calls,"
        " max_completion_tokens, max_tokens; usually it is found out",
    )
    dollars_per_million_input: float = Field(
        default=2.5,
        ge=0,
        allow_inf_nan=False,
        description="The price of a million prompt tokens, for the caps in dollars; default: gpt-4o's",
    )
    dollars_per_million_cached: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="The price of a million prompt tokens read from the cache; default: no discount",
    )
    dollars_per_million_output: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="The price of a million completion tokens; default: gpt-4o's",
    )
    breaker_failures: int = Field(
        default=3, ge=1, description="After so many failures of the server in a row nothing is asked for a while"
    )
    breaker_s: float = Field(default=60.0, gt=0, description="How long that while is")

    @field_validator("leave_out", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        """A key copied with its line end is the usual mistake, and harmless."""
        if key is None:
            return None
        value = key.get_secret_value().strip()
        if not value:
            return None
        if not (value.isascii() and value.isprintable()):
            raise ValueError("it holds characters that no key has")
        return SecretStr(value)

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        url = url.strip()
        try:
            HttpUrl(url)
        except ValidationError:  # whose text quotes the URL
            raise ValueError("it is no http or https URL") from None
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("it holds a password; it belongs into OPENAI_API_KEY")
        if parts.query or parts.fragment:
            raise ValueError("it ends in a query; a key belongs into OPENAI_API_KEY, a version into OPENAI_API_VERSION")
        return url

    @property
    def served_as(self) -> ProfileName:
        """The profile, told or guessed."""
        if self.profile:
            return self.profile
        host = urlsplit(self.base_url).hostname or ""
        if host == "api.openai.com" or host.endswith(".api.openai.com"):
            return "openai"
        azure = host.endswith((".openai.azure.com", ".services.ai.azure.com")) or bool(self.api_version)
        return "azure" if azure else "compatible"

    def dollars(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """At these prices; ``cached_tokens`` are part of ``prompt_tokens``."""
        full = self.dollars_per_million_input
        cached = full if self.dollars_per_million_cached is None else self.dollars_per_million_cached
        millionths = (prompt_tokens - cached_tokens) * full + cached_tokens * cached
        return round((millionths + completion_tokens * self.dollars_per_million_output) / 1e6, 6)
