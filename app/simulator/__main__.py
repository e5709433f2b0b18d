"""``python -m app.simulator``: the shop on one port of this machine."""

import argparse
import json
import socket
import sys

import uvicorn

from app.clock import parse_clock
from app.simulator.scenarios import SCENARIOS
from app.simulator.server import create_app
from app.simulator.shop import Shop


def main() -> None:
    """Serve until SIGTERM or SIGINT; the first line on standard output tells the URL."""
    options = _options()
    try:
        shop = Shop(SCENARIOS[options.scenario], parse_clock(options.clock), seed=options.seed)
    except ValueError as error:
        sys.exit(str(error))
    with shop.live():
        pass  # simulate the history before anybody can ask
    listener = socket.create_server((options.host, options.port), backlog=128)
    url = f"http://{options.host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(create_app(shop), log_level="warning", lifespan="on", timeout_graceful_shutdown=2)
    _Server(config, url).run(sockets=[listener])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.simulator", description=__doc__)
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), required=True)
    parser.add_argument("--clock", required=True, help="'<origin ISO>@<wall epoch seconds>x<speed>'")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class _Server(uvicorn.Server):
    """Says on standard output where it listens, as soon as it does."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets=sockets)
        sys.stdout.write(json.dumps({"url": self._url}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
