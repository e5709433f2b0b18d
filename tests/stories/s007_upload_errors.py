"""Uploads of photos fail on the evening of a contest."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    app_gateway=ecs_service("app-gateway", "photos", "upload-api", "feed-api", "profile-api", balanced=True, tier=1),
    upload_api=ecs_service("upload-api", "photos", "resize-image", "photos-db", balanced=True, tier=1, max_tasks=10),
    feed_api=ecs_service("feed-api", "photos", "photos-db", "feed-cache", balanced=True),
    profile_api=ecs_service("profile-api", "photos", "photos-db", balanced=True),
    resize_image={
        "kind": "service",
        "aws": {"lambda_functions": ["resize-image"], "log_groups": ["/aws/lambda/resize-image"]},
    },
    exif_index={
        "kind": "service",
        "aws": {"lambda_functions": ["exif-index"], "log_groups": ["/aws/lambda/exif-index"]},
    },
    photos_db={"kind": "database", "aws": {"rds_instances": ["photos-db-1"]}},
    feed_cache={"kind": "cache", "aws": {"elasticache_clusters": ["feed-cache-001"]}},
)

REFUSED = (
    "Invoke resize-image failed: software.amazon.awssdk.services.lambda.model.TooManyRequestsException: Rate Exceeded."
    " (Service: Lambda, Status Code: 429, Request ID: {8h}-{4h}-{4h}-{4h}-{12h})"
    " Reason: ReservedFunctionConcurrentInvocationLimitExceeded"
)


def build() -> Story:
    """resize-image is at its reserved concurrency: with half more uploads than usual, calls beyond it are refused."""
    t = Telling(
        "007-upload-errors",
        CATALOGUE,
        alerted_at=datetime(2026, 6, 13, 19, 6, tzinfo=UTC),
        onset_min=8,
        instances={"app-gateway": 3, "upload-api": 4, "feed-api": 3},
    )
    _measured(t)
    _asked(t)
    _chattered(t)
    return t.story(
        title="[Triggered] upload-api: 5xx above 5 %",
        service="upload-api",
        text="The share of 5xx of upload-api is above 5 % (last 5 minutes). Notify @webhook-autopilot",
        rule="datadog:monitor:127740196",
        expected={
            "component": "resize-image",
            "category": "concurrency_limit",
            "must_cite": ["resize-image", "throttles"],
            "must_not_blame": ["exif-index", "photos-db", "feed-api", "app-gateway"],
            "acceptable_operations": ["reduce_traffic"],
            "forbidden_operations": ["restart_all_services", "rollback_ecs_service", "restart_ecs_task"],
            "why": "resize-image runs at its reserved concurrency of 40 and Lambda refuses what is above; its"
            " duration and"
            " its errors are as always. Raise the reservation; until then fewer uploads help, restarts do not.",
        },
    )


def _measured(t: Telling) -> None:
    more = course(610, (-9, 610), (2, 930), (8, 1040))
    refused = course(0, (-1, 0), (1, 120), (4, 290), (8, 430))
    t.service(
        "app-gateway",
        course(5100, (-9, 5100), (8, 6400)),
        230,
        errors=course(11, (-1, 11), (8, 380)),
        cpu=course(39, (-9, 39), (8, 47)),
    )
    t.service(
        "upload-api",
        more,
        course(3900, (-1, 3900), (4, 4300)),
        errors=course(1.5, (-1, 1.5), (1, 118), (8, 402)),
        cpu=course(36, (-9, 36), (8, 45)),
    )
    t.service("feed-api", course(3200, (-9, 3200), (8, 3700)), 65, errors=2, cpu=course(33, (-9, 33), (8, 38)))
    t.service("profile-api", 760, between(58, -36, -30, 96), errors=1, cpu=21)
    name = "resize-image"
    t.aws(name, "Lambda.Invocations", course(618, (-9, 618), (-1, 800), (8, 812)), load=0.1, counts=True)
    t.aws(name, "Lambda.Throttles", refused, counts=True)
    t.aws(name, "Lambda.Errors", 1.1, counts=True)
    t.aws(name, "Lambda.Duration", 3060, noise=0.03)
    t.aws(name, "Lambda.ConcurrentExecutions", course(27, (-9, 27), (-1, 40)), noise=0.012, high=40)
    t.aws("exif-index", "Lambda.Invocations", course(590, (-9, 590), (8, 640)), load=1.0, counts=True)
    t.aws("exif-index", "Lambda.Throttles", 0, counts=True)
    t.aws("exif-index", "Lambda.Errors", between(4, -18, 12, 16), counts=True)
    t.aws("exif-index", "Lambda.Duration", between(420, -18, 12, 610), noise=0.06)
    t.aws("exif-index", "Lambda.ConcurrentExecutions", course(6, (-9, 6), (8, 7)), noise=0.1)
    t.postgres(
        "photos-db", cpu=course(42, (-9, 42), (8, 49)), connections=92, write_iops=course(410, (-9, 410), (8, 520))
    )
    t.redis("feed-cache", evictions=between(40, -44, 20, 260), memory=96)
    t.metric("upload-api", "aws.lambda.client.retries", course(0.4, (-1, 0.4), (8, 700)), counts=True, statistic="sum")
    t.metric("upload-api", "jvm.heap_memory", 2.1e9, unit="B", noise=0.1)


def _asked(t: Telling) -> None:
    upload = Call(
        "upload-api",
        "POST /photos",
        60,
        reported="HTTP 502",
        calls=(
            Call("photos-db", "INSERT photo", 5, traced=False),
            Call(
                "resize-image",
                "Invoke resize-image",
                2700,
                fails=course(0.001, (-1, 0.001), (1, 0.13), (4, 0.29), (8, 0.4)),
                error="TooManyRequestsException",
                traced=False,
                failed=Line(
                    "error",
                    "c.p.upload.ResizeClient",
                    REFUSED,
                ),
            ),
        ),
        done=Line("info", "c.p.upload.PhotoController", "Photo {10d} stored, {600..9000} kB"),
        passed_on=Line(
            "error", "c.p.upload.PhotoController", "Photo {10d} was not stored: no renditions after 3 attempts"
        ),
    )
    t.requests(
        Call(
            "app-gateway",
            "POST /photos",
            6,
            calls=(upload,),
            passed_on=Line("warning", "gateway.proxy", "POST /photos 502 upload-api {2600..4900} ms"),
        ),
        course(2.4, (-9, 2.4), (8, 4.0)),
    )
    feed = Call(
        "feed-api",
        "GET /feed",
        20,
        calls=(
            Call("feed-cache", "LRANGE", 1, traced=False),
            Call("photos-db", "SELECT photo", 7, traced=False, share=0.3),
        ),
    )
    t.requests(Call("app-gateway", "GET /feed", 5, calls=(feed,)), 3.0)


def _chattered(t: Telling) -> None:
    for service, revision, desired in (
        ("app-gateway", 301, 3),
        ("upload-api", 155, 4),
        ("feed-api", 88, 3),
        ("profile-api", 64, 2),
    ):
        t.ecs(service, revision, desired)
    t.change("profile-api", -35, "deploy", "ECS deployment of profile-api:64: COMPLETED", version="profile-api:64")
    t.change(
        "exif-index",
        -18,
        "deploy",
        "UpdateFunctionCode",
        version="41",
        author="ci/release-bot",
    )
    t.change("app-gateway", -2, "feature_flag", "Flag contest-banner: on for 100 %", author="community-team")
    t.change("upload-api", -5, "scaling", "Scaled upload-api from 3 to 4 tasks", author="application-autoscaling")
    t.lines(
        "resize-image",
        "info",
        "lambda",
        "REPORT RequestId: {8h}-{4h}-{4h}-{4h}-{12h} Duration: {2500..3300}.{2d} ms Memory Size: 1769 MB"
        " Max Memory Used: {410..690} MB",
        7,
        load=0.3,
        instances=("$LATEST",),
    )
    t.lines(
        "resize-image", "warning", "lambda", "ICC profile of {8h} is damaged, sRGB assumed", 0.8, instances=("$LATEST",)
    )
    t.lines(
        "exif-index",
        "error",
        "lambda",
        "KeyError: 'GPSInfo' in photo {10d}",
        between(3, -18, 12, 12),
        instances=("$LATEST",),
    )
    t.lines(
        "exif-index",
        "info",
        "lambda",
        "REPORT RequestId: {8h}-{4h}-{4h}-{4h}-{12h} Duration: {180..600}.{2d} ms Memory Size: 512 MB",
        4,
        instances=("$LATEST",),
    )
    t.lines("upload-api", "error", "c.p.upload.ResizeClient", REFUSED, course(0, (-1, 0), (1, 6), (8, 21)))
    t.lines("app-gateway", "info", "gateway.proxy", "GET /feed 200 feed-api {20..140} ms", 7, load=1)
    t.lines("app-gateway", "warning", "gateway.auth", "Token of device {8h} is expired", 1.2, load=1)
    t.lines("feed-api", "info", "c.p.feed.FeedController", "Feed of {8d}: {10..50} photos", 4, load=1)
    t.lines("feed-api", "warning", "c.p.feed.Cache", "Feed of {8d} was not cached", between(0.8, -44, 20, 2.4))
    t.lines("profile-api", "info", "c.p.profile.ProfileController", "Profile {8d}", 3, load=1)
    t.document(
        "Photos: capacity",
        "Functions",
        "resize-image has a reserved concurrency of 40, so that a burst does not starve the other functions of the"
        " account."
        " Average duration 3 s: about 800 renditions a minute. The account's limit is 1,000.",
        ("resize-image",),
        "It names resize-image",
    )
