"""A mistake in autopilot.yaml is told with file, line and the mend."""

from pathlib import Path

import pytest

from app.catalogue import CatalogueError, load

GOOD = """environment: staging
services:
  shop:
    depends_on: [db]
    ecs: {cluster: c, service: s}
  db: {}
policy:
  roles: {medium: admin}
"""


def test_reads_services_and_policy(tmp_path: Path) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text(GOOD)
    loaded = load(file)
    assert loaded.catalogue().neighbours("db", 2) == {"db": 0, "shop": 1}
    assert loaded.roles() == {"none": "responder", "low": "responder", "medium": "admin", "high": "admin"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    ecs: {cluster: c, service: s}", "    ecs: {cluster: c}", ":5: services.shop.ecs.service: Field required"),
        ("  db: {}", "  db: {tire: 1}", ":6: services.db.tire: Extra inputs are not permitted. Remove it"),
        ("medium: admin", "medium: boss", ":8: policy.roles.medium: Input should be 'viewer'"),
        ("depends_on: [db]", "depends_on: [dbb]", ":4: services.shop.depends_on: 'dbb' is not a service"),
        ("  db: {}", "  db: {]", ":6: this is no YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(CatalogueError) as caught:
        load(file)
    assert f"{file}{said}" in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="AUTOPILOT_CONFIG"):
        load(tmp_path / "nowhere.yaml")
