"""kill -9 from the decision to the undo: every operation, at points that nobody listed.

``python -m benchmarks kill`` dies at all of them, with every operation; here a few operations share them.
"""

from pathlib import Path

import pytest

from app.embedded_postgres import EmbeddedPostgres
from benchmarks.kill import SUBJECTS, Subject, killed, phase, prepared

AT_LEAST = 40  # points for an operation that changes something
TESTED = [
    subject
    for subject in SUBJECTS
    if subject.operation
    in (
        "scale_ecs_service",  # harms there, and is undone
        "restart_all_services",  # several calls
        "rollback_ecs_service",
        "gradual_traffic_restore",
        "failover_db_cluster",  # cannot be undone
    )
]
SHARE = 6  # of the points of each operation one in so many is tried


@pytest.mark.parametrize("subject", TESTED, ids=lambda s: s.operation)
def test_nothing_is_lost_done_twice_or_silently_unknown(
    postgres: EmbeddedPostgres, database_url: str, tmp_path: Path, subject: Subject
) -> None:
    ready = prepared(subject, postgres.url, database_url, tmp_path)
    assert len(ready.points) >= AT_LEAST
    assert {"deciding", "claiming", "calling", "recording"} <= {phase(point) for point in ready.points}

    fates = killed(ready, ready.points[TESTED.index(subject) :: SHARE], postgres.url, tmp_path)

    assert [(f.point, f.status, f.steps) for f in fates if f.lost] == []
    assert [(f.point, f.writes, f.expected) for f in fates if f.twice] == []
    assert [(f.point, f.writes, f.steps) for f in fates if f.silent] == []
    assert sum(f.died for f in fates) >= len(fates) // 2, "the processes were to die"
