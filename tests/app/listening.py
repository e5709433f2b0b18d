"""A real HTTP server that takes what the product posts."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/hooks/hunter2-in-the-path"


@dataclass
class Listener:
    """What came, and what is answered next: status and headers, then 200. Status 0 hangs up without an answer."""

    url: str
    answers: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def posts(self) -> list[dict[str, Any]]:
        """The bodies."""
        return [json.loads(body) for _, body in self.came]


@contextmanager
def listening() -> Iterator[Listener]:
    """Until the end of the block; then nobody answers there."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = heard.answers.pop(0) if heard.answers else (200, {})
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"content-length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        heard = Listener(f"http://127.0.0.1:{server.server_port}{PATH}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()
