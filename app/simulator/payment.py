"""How payment-service, its connection pools, redis and Stripe act on each other: a fluid model, stepped in seconds.

The same load has two steady states. In the good one the cache answers and connections are given back quickly. In the
bad one slow or failed payments are tried again, the retries overfill redis and exceed Stripe's rate limit, every miss
and every back-off holds a database connection for longer, and the waiting payments time out: the retries feed
themselves. A surge tips it from the one into the other; taking the load away, or new pools alone, does not tip it
back.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

POOL_SIZE = 8  # connections per task
DATABASE_SLOTS = 26  # of orders-db's max_connections, what other clients and the reserved slots leave
STRIPE_LIMIT = 4.0  # calls/s
POOL_WAIT_S = 30.0  # a payment waits so long for a connection, then times out
RETRY_DELAY_S = 10.0  # mean back-off of the clients
RETRIED = 0.55  # share of failed attempts that is tried again; the rest is lost
ORDER_VALUE_USD = 19.55
REDIS_EVICTS_AT = 97.1  # percent of maxmemory
WARM_UP_S = 54.0  # sessions and local caches are warm after about this long
EVICTION_RANGE = 36.0  # percent of maxmemory above that, and every other lookup misses
CONNECT_STORM = 4.0  # a full database, asked again and again for connections, is so much slower
MISSED_WHEN_EVICTING = 0.21  # share of lookups that miss when redis evicts at its hardest
MISSED_WHEN_COLD = 0.85
COLD_START = 0.03  # share of lookups that a new task's empty local cache misses
REDIS_TIMEOUT_RATIO = 0.285  # of attempts, when redis evicts at its hardest
REDIS_KEYS_S = 16.0  # life of a key
UNCACHED_ERRORS = 1.6  # redis time-outs per payment, when it does not answer
MISSED_WHEN_LOST = 0.62
RETRY_KEYS = 38.0  # percent of maxmemory per failed payment a second; they keep far more state
LEAK_RATE = 0.019  # share of the leakable connections lost per abandoned payment
LEAKABLE = 0.6  # share of a pool
UNRESOLVED_S = 54.0  # an abandoned payment is pending for so long until it is reconciled with Stripe
HELD_S = 2.4  # a connection is held so long with a warm cache
BACK_OFF_HELD_S = 0.6  # and so much longer when Stripe asks to come back later
TURNOVER = 0.98  # a pool is never busier than this: connections change hands
WEDGED_AFTER_S = 10.0  # of a starving pool, and the task's health check times out


@dataclass(slots=True)
class Pool:
    """One task's connection pool."""

    open: float = 0.0  # connections the database granted
    leaked: float = 0.0  # of these, lost to abandoned payments until the task is replaced
    cold: float = 1.0  # share of the local cache that is not yet filled
    starving_s: float = 0.0
    wedged: bool = False

    @property
    def usable(self) -> float:
        """Connections that can serve payments."""
        return 0.0 if self.wedged else max(self.open - self.leaked, 0.0)

    @property
    def missing(self) -> float:
        """Share of the pool that the database refused."""
        return 1.0 - self.open / POOL_SIZE


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the payments' dependencies are like."""

    database_delay: float = 1.0  # how many times as long as ordinarily a query takes
    database_up: bool = True
    database_slots: float = DATABASE_SLOTS
    cache_answers: bool = True
    provider_up: float = 1.0  # share of calls that Stripe can answer at all


ORDINARY = Conditions()


@dataclass(slots=True)
class Flow:
    """What happened in one step. Rates are per second."""

    arrivals: float = 0.0
    attempts: float = 0.0
    succeeded: float = 0.0
    lost: float = 0.0
    timeouts: float = 0.0  # no connection within POOL_WAIT_S
    refused: float = 0.0  # the database has no slot left
    rate_limited: float = 0.0
    redis_errors: float = 0.0
    stripe_success_ratio: float = 1.0
    pool_utilization: float = 0.0
    redis_memory_percent: float = 50.0
    miss_ratio: float = 0.03
    pending: float = 0.0
    held_s: float = HELD_S
    slots_used: float = 0.0
    met: Conditions = ORDINARY

    @property
    def failed_ratio(self) -> float:
        """Share of attempts that failed."""
        return 1.0 - self.succeeded / self.attempts if self.attempts > 0 else 0.0


@dataclass
class Payments:
    """State of the model. Feed it with :meth:`step`."""

    warm_level: float
    pools: dict[str, Pool] = field(default_factory=dict)
    waiting: float = 0.0
    retrying: float = 0.0
    unresolved: float = 0.0
    working_set: float = 50.0  # what redis would hold if it had room, percent of maxmemory
    flow: Flow = field(default_factory=Flow)

    def found(self, task: str) -> None:
        """A task that has been running for days: its cache is warm."""
        self.pools[task] = Pool(cold=0.0)

    def step(self, dt: float, arrivals: float, tasks: Iterable[str], met: Conditions = ORDINARY) -> Flow:
        """Advance by ``dt`` seconds with ``arrivals`` new payments per second and these tasks running."""
        self._sync_pools(tasks, met)
        cold = self._warm_up(dt, arrivals)
        retries = self.retrying / RETRY_DELAY_S
        attempts = arrivals + retries
        evicting = self._fill_redis(dt, arrivals, retries)
        stripe_ok = self._call_stripe(attempts, met.provider_up)
        rate_limited = attempts * (1.0 - stripe_ok) ** 2  # one immediate retry each
        refused = (attempts - rate_limited) * (self._refused_share() if met.database_up else 1.0)
        redis_errors = attempts * (0.0015 + REDIS_TIMEOUT_RATIO * evicting if met.cache_answers else UNCACHED_ERRORS)
        demand = attempts - rate_limited - refused
        miss = min(0.03 + MISSED_WHEN_COLD * cold + MISSED_WHEN_EVICTING * evicting, 0.85)
        if not met.cache_answers:
            miss = max(miss, MISSED_WHEN_LOST)
        held = HELD_S / (1.0 - miss) ** 2 * met.database_delay + BACK_OFF_HELD_S * (1.0 - stripe_ok)
        held *= 1.0 + CONNECT_STORM * self._missing_share()
        served, timeouts = self._serve(dt, demand, held)
        succeeded = max(served - 0.12 * redis_errors, 0.0)
        failed = rate_limited + refused + timeouts + (served - succeeded)
        self.retrying += (RETRIED * failed - retries) * dt
        self.unresolved += (timeouts - self.unresolved / UNRESOLVED_S) * dt
        utilization = self._utilization(demand, held)
        self._wear(dt, timeouts, utilization)
        self.flow = Flow(
            arrivals=arrivals,
            attempts=attempts,
            succeeded=succeeded,
            lost=(1.0 - RETRIED) * failed,
            timeouts=timeouts,
            refused=refused,
            rate_limited=rate_limited,
            redis_errors=redis_errors,
            stripe_success_ratio=stripe_ok,
            pool_utilization=utilization,
            redis_memory_percent=min(self.working_set, REDIS_EVICTS_AT),
            miss_ratio=miss,
            pending=self.waiting + self.retrying + self.unresolved + min(served * held, self._usable()),
            held_s=held,
            slots_used=sum(pool.open for pool in self.pools.values()),
            met=met,
        )
        return self.flow

    def _sync_pools(self, tasks: Iterable[str], met: Conditions) -> None:
        """Pools live and die with their tasks; missing connections are asked for again at every step."""
        running = list(tasks)
        self.pools = {task: self.pools.get(task) or Pool() for task in running}
        wanted = POOL_SIZE * len(running)
        granted = min(1.0, met.database_slots / wanted) if wanted else 1.0
        free = met.database_slots - sum(pool.open for pool in self.pools.values())
        for pool in self.pools.values():
            # A full database spreads the shortage: connections are recycled, and whoever asks first gets the slot.
            share = POOL_SIZE * granted
            change = min(share - pool.open, max(free, 0.0))
            pool.open += change
            free -= change

    def _warm_up(self, dt: float, arrivals: float) -> float:
        """Share of payments whose session or local cache is cold."""
        unknown = max(0.0, 1.0 - self.warm_level / arrivals) if arrivals > 0 else 0.0
        self.warm_level += (arrivals - self.warm_level) * dt / WARM_UP_S
        serving = [pool for pool in self.pools.values() if not pool.wedged]
        local = sum(pool.cold for pool in serving) / len(serving) if serving else 0.0
        for pool in serving:
            pool.cold -= pool.cold * dt / WARM_UP_S
        return min(unknown + COLD_START * local, 1.0)

    def _fill_redis(self, dt: float, arrivals: float, retries: float) -> float:
        """Payments keep keys for about a minute, failed ones far more state; 0 to 1, how hard redis evicts."""
        target = 40.0 + 10.0 * arrivals + RETRY_KEYS * retries
        self.working_set += (target - self.working_set) * dt / REDIS_KEYS_S
        return min(max((self.working_set - REDIS_EVICTS_AT) / EVICTION_RANGE, 0.0), 1.0)

    def _call_stripe(self, attempts: float, up: float) -> float:
        """Share of Stripe calls that succeed; rejected calls are repeated once at once."""
        calls = attempts * (2.0 - self.flow.stripe_success_ratio)
        ratio = (min(1.0, STRIPE_LIMIT / calls) if calls > 0 else 1.0) * up
        return 0.5 * (ratio + self.flow.stripe_success_ratio)

    def _refused_share(self) -> float:
        """Share of attempts that land on a missing connection; tasks that fail at once look idle and draw more."""
        serving = [pool for pool in self.pools.values() if not pool.wedged]
        weights = [1.0 + 5.0 * pool.missing for pool in serving]
        total = sum(weights)
        return sum(w * p.missing for w, p in zip(weights, serving, strict=True)) / total if total else 0.0

    def _missing_share(self) -> float:
        return sum(pool.missing for pool in self.pools.values()) / max(len(self.pools), 1)

    def _usable(self) -> float:
        return sum(pool.usable for pool in self.pools.values())

    def _serve(self, dt: float, demand: float, held: float) -> tuple[float, float]:
        """Payments served and timed out, per second."""
        served = min(demand + self.waiting / dt, TURNOVER * self._usable() / held)
        timeouts = self.waiting / POOL_WAIT_S
        self.waiting = max(self.waiting + (demand - served - timeouts) * dt, 0.0)
        return served, timeouts

    def _utilization(self, demand: float, held: float) -> float:
        usable = self._usable()
        if usable <= 0:
            return TURNOVER
        serving = [pool for pool in self.pools.values() if not pool.wedged]
        leaked = sum(min(pool.leaked, pool.open) for pool in serving)
        busy = min((demand + self.waiting / POOL_WAIT_S) * held, usable)
        return min((busy + leaked) / (usable + leaked), TURNOVER)

    def _wear(self, dt: float, timeouts: float, utilization: float) -> None:
        """Abandoned payments leak connections, and a starving task stops answering its health check."""
        for pool in self.pools.values():
            leak = LEAK_RATE * timeouts * (LEAKABLE * POOL_SIZE - pool.leaked)
            pool.leaked += max(leak, 0.0) * dt
            starving = utilization >= TURNOVER
            pool.starving_s = pool.starving_s + dt if starving else 0.0
        # The load balancer keeps two thirds in service whatever their health checks say.
        if len(self.pools) >= 3 and sum(p.wedged for p in self.pools.values()) < len(self.pools) // 3:
            worst = max(self.pools.values(), key=lambda pool: (pool.starving_s, pool.leaked))
            worst.wedged = worst.starving_s >= WEDGED_AFTER_S
