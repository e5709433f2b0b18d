"""What sets in at one moment: deployments, changes by people, and things that break.

A cause changes the shop's parts and leaves the traces that such a change leaves; what follows from it, the shop works
out by itself.
"""

from collections.abc import Callable

from app.simulator.autoscaling import AUTHOR
from app.simulator.balancer import Forward
from app.simulator.cluster import Happening
from app.simulator.flags import ENVIRONMENT, PROFILE
from app.simulator.topology import OVERFLOW_TARGET_GROUP_ARN, SERVICES
from app.simulator.world import Disturbance, World

Cause = Callable[[World, float], None]
"""Takes the time in epoch seconds."""


def deploy(service: str, version: str, author: str) -> Cause:
    """A new release is rolled out."""

    def apply(world: World, at: float) -> None:
        definition = world.cluster.register(service, version, at)
        world.cluster.update(service, at, definition=definition.arn, author=author)

    return apply


def scale(service: str, desired: int) -> Cause:
    """Application Auto Scaling follows the load."""

    def apply(world: World, at: float) -> None:
        world.cluster.update(service, at, desired=desired, author=AUTHOR)

    return apply


def scale_by_schedule(service: str, minimum: int, maximum: int) -> Cause:
    """A scheduled action sets the range within which the service is kept."""

    def apply(world: World, at: float) -> None:
        world.autoscaling.register(service, at, minimum, maximum, None)

    return apply


def flag(name: str, content: str, author: str) -> Cause:
    """A new version of the feature flags is deployed to everybody."""

    def apply(world: World, at: float) -> None:
        version = world.flags.add(content)
        deployment = world.flags.deploy(version, at, f"{name} for everybody")
        title = f"Feature flag {name} turned on: deployment {deployment.number} of feature-flags, version {version}"
        asked = {
            "applicationId": "shp4p9q",
            "environmentId": ENVIRONMENT[0],
            "configurationProfileId": PROFILE[0],
            "configurationVersion": str(version),
        }
        told = Happening(
            at, "catalogue", "feature_flag", title, "", author, asked, "StartDeployment", "appconfig.amazonaws.com"
        )
        world.cluster.happenings.append(told)

    return apply


def divert(service: str, percent: int, author: str) -> Cause:
    """Somebody lets the load balancer send a part of the traffic to the overflow page."""

    def apply(world: World, at: float) -> None:
        spec = SERVICES[service]
        weights = {spec.target_group_arn: 100 - percent, OVERFLOW_TARGET_GROUP_ARN: percent}
        world.balancer.modify(spec.rule_arn, Forward(weights))
        title = f"Listener rule of {service} configured: {percent} % of its traffic to please-try-again"
        source = "elasticloadbalancing.amazonaws.com"
        told = Happening(
            at, service, "configuration", title, "", author, {"ruleArn": spec.rule_arn}, "ModifyRule", source
        )
        world.cluster.happenings.append(told)

    return apply


def hang(service: str) -> Cause:
    """One task spins and answers nothing any more."""

    def apply(world: World, at: float) -> None:
        world.cluster.services[service].running(at)[0].hung = True

    return apply


def slow_volume(factor: float) -> Cause:
    """The volume of the database's writer degrades; the reader has its own host."""

    def apply(world: World, at: float) -> None:
        world.database.instance(world.database.writer).slower = factor

    return apply


def hung_node(world: World, at: float) -> None:
    """The cache's primary keeps its connections and answers nothing: nobody fails it over."""
    world.cache.hung.add(world.cache.primary)


def scan(title: str) -> Cause:
    """The reporting task that runs starts a job that reads whole tables; it ends with that task."""

    def apply(world: World, at: float) -> None:
        task = world.cluster.services["reporting"].running(at)[0]
        world.database.batch = task.id
        told = Happening(at, "reporting", "job", title, task.definition.version, "lena", operation="", source="")
        world.cluster.happenings.append(told)

    return apply


def costly_misses(service: str, cost: float, title: str, author: str) -> Cause:
    """What a service must do when its cache misses becomes so many times as much work."""

    def apply(world: World, at: float) -> None:
        world.miss_cost[service] = cost
        told = Happening(at, service, "configuration", title, "", author, operation="", source="")
        world.cluster.happenings.append(told)

    return apply


def provider(up: float) -> Cause:
    """Stripe can answer this share of its calls."""

    def apply(world: World, at: float) -> None:
        world.provider_up = up

    return apply


def disturb(service: str, minutes: float, error_ratio: float, slower: float) -> Cause:
    """The disk of a service's store does not keep up, for so long."""

    def apply(world: World, at: float) -> None:
        end = at + 60.0 * minutes
        world.disturbances.append(Disturbance(service, "disk", at, end, error_ratio, slower))

    return apply
