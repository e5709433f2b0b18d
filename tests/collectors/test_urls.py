"""Where a source is: what settings may say."""

import pytest

from collectors import jaeger, langfuse, loki, prometheus, tempo
from collectors._prometheus_family import FamilySettings
from collectors._urls import base_url


def test_a_url_is_kept_without_its_last_slash() -> None:
    assert base_url("https://prometheus.shop:9090/base/") == "https://prometheus.shop:9090/base"


@pytest.mark.parametrize("url", ["prometheus:9090", "file:///etc/passwd", "https://", "https:///path"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with https"):
        base_url(url)


@pytest.mark.parametrize("settings", [prometheus.Settings, loki.Settings, tempo.Settings, jaeger.Settings])
def test_a_password_in_the_url_would_be_in_every_link(settings: type[FamilySettings]) -> None:
    with pytest.raises(ValueError, match="must hold no user and no password") as refused:
        settings.model_validate({"url": "https://kim:s3cret@prometheus.shop"})
    assert "s3cret" not in str(refused.value)


def test_langfuse_is_no_exception() -> None:
    with pytest.raises(ValueError, match="must hold no user and no password"):
        langfuse.Settings(host="https://pk:sk@cloud.langfuse.com")
