"""A program as it is installed; else Debian's package, unpacked and not installed, for tests against the real thing."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import processes


@dataclass(frozen=True)
class Program:
    """How to run it: ``command``, which sees ``root`` as /, with files below ``runs``."""

    command: tuple[str, ...]
    root: Path
    runs: Path

    def inside(self, path: Path) -> str:
        """The path as the program sees it."""
        return f"/{path.relative_to(self.root)}"

    @contextmanager
    def running(self, options: Mapping[str, str], folder: Path, ready: str) -> Iterator[None]:
        """The program with ``--name=value`` options, once the URL ``ready`` answers; killed at the end."""
        arguments = [*self.command, *(f"--{name}={value}" for name, value in options.items())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                processes.wait_until(lambda: processes.answers(ready), ready)
                yield
            finally:
                process.kill()
                process.wait(10)


def program(
    package: str, other_name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Program:
    """The package's program, or the test is skipped.

    Installing a package would make users and start services. Its program looks for files below /usr/share, so it
    gets a root directory of its own.
    """
    if installed := shutil.which(package) or shutil.which(other_name):
        return Program((installed,), Path("/"), tmp_path_factory.mktemp(other_name))
    if missing := [tool for tool in ("apt-get", "dpkg-deb", "ldd", "chroot", "unshare") if not shutil.which(tool)]:
        pytest.skip(f"there is no {other_name} here, and no {missing[0]} to run Debian's with")
    root = Path(request.config.cache.mkdir(other_name))
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in parallel
        if not (root / "runs").exists():
            _unpack(package, root)
    chroot = ("chroot",) if os.geteuid() == 0 else ("unshare", "--map-root-user", "chroot")
    command = (*chroot, str(root), f"/usr/bin/{package}")
    _run([*command, "--version"], root, f"{package} cannot be run here")
    return Program(command, root, root / "runs")


def _unpack(package: str, root: Path) -> None:
    """The package, and the libraries it is linked with."""
    refresh = (
        "apt-get update -q &&" if os.geteuid() == 0 and not any(Path("/var/lib/apt/lists").glob("*_Packages*")) else ""
    )
    _run(["sh", "-c", f"{refresh} apt-get download {package}"], root, f"{package} cannot be downloaded")
    archive = next(root.glob("*.deb"))
    _run(["dpkg-deb", "-x", archive.name, "."], root, f"{package} cannot be unpacked")
    archive.unlink()
    for library in re.findall(r"/\S+", _run(["ldd", f"usr/bin/{package}"], root, f"{package} cannot be run here")):
        copy = root / library[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, copy)
    (root / "runs").mkdir()


def _run(command: list[str], folder: Path, trouble: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=120, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        pytest.skip(f"{trouble}: {error}")
    if done.returncode:
        pytest.skip(f"{trouble}: {done.stderr[-300:]}")
    return done.stdout
