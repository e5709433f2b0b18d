"""A mistake in autopilot.yaml is told with file, line and the mend."""

from pathlib import Path

import pytest

from app.catalogue import CatalogueError, load
from graph.catalogue import Catalogue, Service
from graph.policy import RISKS

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
    catalogue = loaded.catalogue()
    assert catalogue.neighbours("db", 2, catalogue.edges()) == {"db": 0, "shop": 1}
    assert [loaded.policy.role_for(r) for r in RISKS] == ["responder", "responder", "admin", "admin"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    ecs: {cluster: c, service: s}", "    ecs: {cluster: c}", ":5: services.shop.ecs.service: Field required"),
        ("  db: {}", "  db: {tire: 1}", ":6: services.db.tire: Extra inputs are not permitted. Remove it"),
        ("medium: admin", "medium: boss", ":8: policy.roles.medium: Input should be 'viewer'"),
        ("depends_on: [db]", "sends_to: [dbb]", ":4: services.shop.sends_to: 'dbb' is not a service"),
        ("depends_on: [db]", "depends_on: [dbb]", ":4: services.shop.depends_on: 'dbb' is not a service"),
        ("  db: {}", "  db: {]", ":6: this is no YAML"),
        ("  db: {}", "  db: {}\n  shop: {}", ":7: 'shop' stands here twice, first in line 3"),
        ("  db: {}", "  db: {tier: 1, owner: me, tier: 2}", ":6: 'tier' stands here twice, first in line 6"),
        ("  db: {}", "  db: {min_tasks: 5, max_tasks: 3}", ":6: services.db: min_tasks 5 is more than max_tasks 3."),
        ("  db: {}", "  db: {min_tasks: 21}", ":6: services.db: min_tasks 21 is more than max_tasks 20."),
        ("  db: {}", "  db:", ":6: services.db: this is a mapping: {name: value}, or {} for nothing."),
        ("depends_on: [db]", "depends_on: db", ":4: services.shop.depends_on: this is a list: [one, two]."),
        ("  db: {}", "  db: {aws: {log_group: [x]}}", ":6: services.db.aws.log_group: Extra inputs"),
        ("  db: {}", "  db: {github: {repository: x}}", ":6: services.db.github.repository: String should match"),
        ("  db: {}", "  db:\n    kubernetes: {}", ":7: services.db.kubernetes.workload: Field required"),
        ("policy:", "mcp: {x: {tools: []}}\npolicy:", ":7: mcp.x: give either url or command."),
        (
            "policy:",
            "masking:\n  patterns:\n    - {name: no, regex: (}\npolicy:",
            ":9: masking.patterns.0.regex: this is no regular expression",
        ),
        ("  db: {}", "  db: {owner: \0}", ": this is no YAML"),
        ("  db: {}", "  db: {owner: 2024-13-45}", ": this is no YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(CatalogueError) as caught:
        load(file)
    assert f"{file}{said}" in str(caught.value)


def test_an_anchor_is_no_duplicate(tmp_path: Path) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text("services:\n  a: &a {tier: 1}\n  b: {<<: *a, tier: 2}\n  c: *a\n")
    assert {name: service.tier for name, service in load(file).services.items()} == {"a": 1, "b": 2, "c": 1}


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(CatalogueError, match=r"cannot be read: .*null"):
        load(Path("a\0b"))
    file = tmp_path / "autopilot.yaml"
    file.write_bytes("environment: x\nservices: {café: {}}\n".encode("latin-1"))
    with pytest.raises(CatalogueError, match=":2: this is not UTF-8"):
        load(file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="AUTOPILOT_CONFIG"):
        load(tmp_path / "nowhere.yaml")


def test_messages_are_asynchronous_edges_and_callees_are_of_their_kind() -> None:
    services = {"shop": Service(depends_on=("db",), sends_to=("mail", "db")), "db": Service(kind="database")}
    edges = Catalogue(services={**services, "mail": Service(kind="queue")}).edges()
    assert [(e.callee, e.asynchronous, e.callee_kind) for e in edges] == [
        ("db", False, "database"),
        ("mail", True, "queue"),
    ]
