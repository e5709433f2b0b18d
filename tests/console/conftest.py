"""The product with its console, for tests of the page."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn

from app.db import create_pool
from app.main import create_app
from app.settings import Settings
from tests.console.browsing import CATALOGUE, Console
from tests.processes import wait_until


@pytest.fixture
async def console(database_url: str, tmp_path: Path) -> AsyncIterator[Console]:
    """The product with its console, on a port of its own."""
    (tmp_path / "autopilot.yaml").write_text(CATALOGUE)
    settings = Settings(config=tmp_path / "autopilot.yaml", executors=("rehearsal",))
    app = create_app(settings, database_url, worker=False, console=True)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        await asyncio.to_thread(wait_until, lambda: server.started, "the server to start")
        port = server.servers[0].sockets[0].getsockname()[1]
        async with create_pool(database_url) as pool:
            served = Console(f"http://127.0.0.1:{port}", pool, database_url)
            yield served
            await served.close()
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join, 20)
