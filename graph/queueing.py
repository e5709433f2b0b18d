"""How long requests wait where some servers share one queue: Erlang's formulas for M/M/c. Pure.

Requests come at random (Poisson) and take exponentially distributed times; the first free server takes the next. Real
services are neither; what holds for them all the same is the shape: little happens until a service is nearly full, and
then waiting grows without bound.
"""

from math import inf

MOST_SERVERS = 100_000  # more make no difference, and each takes a step of the recursion


def erlang_b(servers: int, offered: float) -> float:
    """The chance that all servers are busy where nobody waits, 0 to 1.

    ``offered`` is the load in erlangs: requests per second times seconds of service, the servers that it keeps busy.
    By the recursion on the number of servers, in which nothing over- or underflows.
    """
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
        if blocked == 0.0:
            break
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """The chance that a request has to wait, 0 to 1; 1 where the load is more than the servers can take."""
    if offered >= servers:
        return 1.0
    blocked = erlang_b(servers, offered)
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


def waiting_time(servers: int, utilisation: float) -> float:
    """Mean time in the queue, in mean times of service; infinite from a utilisation of 1 on.

    ``utilisation`` is the busy share of the servers' time.
    """
    if utilisation >= 1.0:
        return inf
    servers = min(servers, MOST_SERVERS)
    return erlang_c(servers, utilisation * servers) / (servers * (1.0 - utilisation))


def response_time(servers: int, utilisation: float) -> float:
    """Mean time from arrival to answer, in mean times of service: 1 where nobody waits."""
    return 1.0 + waiting_time(servers, utilisation)
