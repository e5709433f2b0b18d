"""What a release may do wrong, in every task that runs its image."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """Of one image."""

    error_ratio: float = 0.0  # share of requests that a fault of one code path breaks
    logs: str = ""  # what that code path logs besides, as a customer typed it
    leak_percent_per_min: float = 0.0  # of the memory that a task may use
    connections_per_min: float = 0.0  # to orders-db, taken and never given back
    dies_after_s: float | None = None  # its process ends so long after its health check first passed


Defects = Mapping[str, Defect]
"""By image, ``service:version``."""

SOUND = Defect()


def defect(defects: Defects, service: str, version: str) -> Defect:
    """Of that release; none for most."""
    return defects.get(f"{service}:{version}", SOUND)
