"""What the shop is made of: its services, who calls whom, and the names AWS knows them under."""

from dataclasses import dataclass

ENVIRONMENT = "production"
REGION = "us-east-1"
ACCOUNT = "123456789012"
CLUSTER = "shop"

_ELB = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}"
LOAD_BALANCER = "app/shop/50dc6c495c0c9188"
LOAD_BALANCER_ARN = f"{_ELB}:loadbalancer/{LOAD_BALANCER}"
LISTENER_ARN = f"{_ELB}:listener/{LOAD_BALANCER}/f2f7dc8efc522ab2"
OVERFLOW_TARGET_GROUP_ARN = f"{_ELB}:targetgroup/please-try-again/0a1d3c5b7f924e68"


@dataclass(frozen=True)
class Front:
    """A service's entry on the load balancer."""

    path: str
    rule_id: str
    target_group_id: str
    priority: int


@dataclass(frozen=True)
class ServiceSpec:
    """A service in ordinary times. ``tasks`` is 0 for what does not run on ECS."""

    name: str
    calls: tuple[str, ...] = ()
    requests_per_s: float = 0.0
    p95_ms: float = 0.0
    error_ratio: float = 0.0
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    tasks: int = 0
    revision: int = 1
    version: str = ""
    surge: float = 1.0  # requests when the shop's traffic triples, as a multiple of ordinary requests
    front: Front | None = None
    minimum_healthy_percent: int = 50
    maximum_percent: int = 150
    headroom: float = 4.5  # it can serve so many times its ordinary requests

    @property
    def rule_arn(self) -> str:
        """Of its listener rule. Raises ValueError for a service that is not on the load balancer."""
        return f"{_ELB}:listener-rule/{LOAD_BALANCER}/f2f7dc8efc522ab2/{self._front().rule_id}"

    @property
    def target_group(self) -> str:
        """The CloudWatch dimension of its target group."""
        return f"targetgroup/{self.name}/{self._front().target_group_id}"

    @property
    def target_group_arn(self) -> str:
        """Of its target group. Raises ValueError for a service that is not on the load balancer."""
        return f"{_ELB}:{self.target_group}"

    def _front(self) -> Front:
        if self.front is None:
            raise ValueError(f"{self.name} is not on the load balancer")
        return self.front


SERVICES: dict[str, ServiceSpec] = {
    spec.name: spec
    for spec in (
        ServiceSpec(
            "web-gateway",
            calls=("checkout", "cart", "catalogue"),
            requests_per_s=40.0,
            p95_ms=420.0,
            error_ratio=0.002,
            cpu_percent=31.0,
            memory_percent=42.0,
            tasks=3,
            revision=118,
            version="v5.11.2",
            surge=2.1,
            headroom=3.4,
            front=Front("/*", "9683b2d02a6cabee", "73e2d6bc24d8a067", 50),
        ),
        ServiceSpec(
            "checkout",
            calls=("payment-service", "cart", "notification"),
            requests_per_s=3.0,
            p95_ms=3100.0,
            error_ratio=0.003,
            cpu_percent=27.0,
            memory_percent=51.0,
            tasks=3,
            revision=73,
            version="v2.3.9",
            surge=3.0,
            front=Front("/checkout/*", "1f6c0a7e3b2d4c58", "a5b1e0c94d7f2836", 20),
        ),
        ServiceSpec(
            "cart",
            calls=(),
            requests_per_s=9.0,
            p95_ms=85.0,
            error_ratio=0.001,
            cpu_percent=22.0,
            memory_percent=38.0,
            tasks=2,
            revision=41,
            version="v1.19.0",
            surge=2.6,
            front=Front("/cart/*", "5d8e2b4f9a0c7163", "c07d9e1f3a5b2846", 30),
        ),
        ServiceSpec(
            "catalogue",
            calls=(),
            requests_per_s=28.0,
            p95_ms=120.0,
            error_ratio=0.001,
            cpu_percent=35.0,
            memory_percent=47.0,
            tasks=3,
            revision=204,
            version="v3.7.1",
            surge=1.8,
            front=Front("/catalogue/*", "7b3f1c9d5e2a8046", "e1f2a3b4c5d60798", 40),
        ),
        ServiceSpec(
            "payment-service",
            calls=("orders-db", "redis", "stripe-integration"),
            requests_per_s=1.0,
            p95_ms=2700.0,
            error_ratio=0.002,
            cpu_percent=24.0,
            memory_percent=55.0,
            tasks=3,
            revision=42,
            version="v1.32.4",
            surge=3.0,
            front=Front("/payments/*", "3c9a5e7d1b0f2468", "6d0ecf831eec9f09", 10),
            minimum_healthy_percent=66,
            maximum_percent=100,
            headroom=9.0,  # what limits it are its connections
        ),
        ServiceSpec(
            "notification",
            requests_per_s=1.0,
            p95_ms=160.0,
            error_ratio=0.002,
            cpu_percent=12.0,
            memory_percent=33.0,
            tasks=2,
            revision=17,
            version="v1.4.8",
            surge=2.4,
        ),
        ServiceSpec(
            "reporting",
            calls=("orders-db",),
            requests_per_s=0.2,
            p95_ms=2600.0,
            error_ratio=0.004,
            cpu_percent=44.0,
            memory_percent=61.0,
            tasks=1,
            revision=9,
            version="v0.9.3",
            minimum_healthy_percent=0,
            maximum_percent=200,
        ),
        ServiceSpec("orders-db", requests_per_s=6.0, p95_ms=18.0, cpu_percent=36.0, memory_percent=63.0, surge=2.2),
        ServiceSpec("redis", requests_per_s=24.0, p95_ms=2.1, cpu_percent=19.0, surge=2.2),
        ServiceSpec("stripe-integration"),
    )
}


def service_arn(service: str) -> str:
    """The ECS service's ARN."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/{CLUSTER}/{service}"


def cluster_arn() -> str:
    """The ECS cluster's ARN."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"


def task_definition_arn(family: str, revision: int) -> str:
    """The full ARN with revision."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{family}:{revision}"
