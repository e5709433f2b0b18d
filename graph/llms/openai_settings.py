"""The model's settings, apart from its client: a process without a key never imports the client."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """``OPENAI_<NAME>``: the names that everybody uses."""

    model_config = SettingsConfigDict(
        env_prefix="OPENAI_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    api_key: SecretStr | None = Field(default=None, description="A key; any word for a local server that asks for none")
    base_url: str = Field(
        default="https://api.openai.com/v1", description="Another server that speaks chat completions; ends in /v1"
    )
    model: str = Field(default="gpt-4o", description="A model that can answer in a JSON schema")
    timeout_s: float = Field(default=60.0, gt=0, description="For one answer, retry included")
    max_completion_tokens: int = Field(default=4_000, ge=256, description="The longest answer; also bounds its cost")
    dollars_per_million_input: float = Field(
        default=2.5,
        ge=0,
        description="The price of a million prompt tokens; for AUTOPILOT_INVESTIGATION_DOLLARS_PER_DAY",
    )
    dollars_per_million_output: float = Field(
        default=10.0, ge=0, description="The price of a million completion tokens"
    )
