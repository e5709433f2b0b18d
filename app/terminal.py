"""What the command line says to people."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType


def printable(text: str) -> str:
    """Words of strangers, with nothing in them that moves the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def say(text: str, *, err: bool = False) -> None:
    """Print what may hold words of strangers."""
    typer.echo(printable(text), err=err)


def stop(said: str, code: int) -> NoReturn:
    """Say why, and exit with that code."""
    say(f"autopilot: {said}", err=True)
    raise typer.Exit(code)


def show(parts: "Iterable[RenderableType]") -> None:
    """Tables and the like, as wide in a pipe as in a terminal."""
    from rich.console import Console

    console = Console(width=120, highlight=False, markup=False)
    for part in parts:
        console.print(part)
