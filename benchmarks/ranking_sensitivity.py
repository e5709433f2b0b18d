"""How much hangs on each constant of the engine: every one halved and doubled, and the cases ranked again."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import graph.ranking
from benchmarks.ranking_cases import Given, hits, loaded
from benchmarks.results import Table

FACTORS = (0.5, 2.0)
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")


class Constant(NamedTuple):
    """By the module that defines it; a dictionary's numbers are changed together."""

    module: str
    name: str


def modules() -> list[ModuleType]:
    """All modules of the engine, by name."""
    found = pkgutil.iter_modules(graph.ranking.__path__, "graph.ranking.")
    return [importlib.import_module(name) for name in sorted(info.name for info in found)]


def constants() -> list[Constant]:
    """Every numeric constant, and every dictionary of numbers, in the order of module and source."""
    return [
        Constant(module.__name__, name)
        for module in modules()
        for name in _defined(module)
        if scaled(getattr(module, name), 2.0) is not None
    ]


def _defined(module: ModuleType) -> Iterator[str]:
    for node in ast.parse(inspect.getsource(module)).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (n.id for n in names if isinstance(n, ast.Name) and _CONSTANT.fullmatch(n.id))


def scaled(value: object, factor: float) -> object | None:
    """The value times the factor, a whole number staying one and above zero; None for what is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return max(1, round(value * factor))
    if isinstance(value, float):
        return value * factor
    if isinstance(value, dict):
        values = {key: scaled(one, factor) for key, one in value.items()}
        return values if values and all(isinstance(one, int | float) for one in values.values()) else None
    return None


@contextmanager
def changed(constant: Constant, factor: float) -> Iterator[None]:
    """Set it in every module that holds it, and put it back."""
    value = getattr(importlib.import_module(constant.module), constant.name)
    holders = [m for m in modules() if m.__name__ == constant.module or _imports(m, constant)]
    _set(holders, constant.name, scaled(value, factor))
    try:
        yield
    finally:
        _set(holders, constant.name, value)


def _set(holders: list[ModuleType], name: str, value: object) -> None:
    """What the engine remembers of its answers may rest on the old value, so it forgets."""
    for module in holders:
        setattr(module, name, value)
    for module in modules():
        for one in vars(module).values():
            if hasattr(one, "cache_clear"):
                one.cache_clear()


def _imports(module: ModuleType, constant: Constant) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == constant.module
        and any(alias.name == constant.name and alias.asname is None for alias in node.names)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
    )


def table(given: Given, pool: Executor) -> Table:
    """All constants; the one that matters most first."""
    every = constants()
    jobs = [(constant, factor) for constant in every for factor in FACTORS]
    usual = pool.submit(_top_1, given, None, 1.0)
    results = dict(zip(jobs, pool.map(_top_1, [given] * len(jobs), *zip(*jobs, strict=True)), strict=True))
    base = usual.result()
    rows = sorted(
        (_row(constant, base, [results[constant, factor] for factor in FACTORS]) for constant in every), key=_size
    )
    size = {name: len(cases) for name, cases in loaded(given).items()}
    return Table(
        "Sensitivity: cases whose first suspect is right, each constant halved / doubled",
        ("constant", *given.sets, "largest change"),
        [("as it is", *map(str, base), ""), *rows],
        f"{len(every)} constants of `graph.ranking`; of {', '.join(f'{n} {name}' for name, n in size.items())} cases."
        " A dictionary's values are changed together; whole numbers stay at one or more.",
    )


def _row(constant: Constant, base: list[int], outcomes: list[list[int]]) -> tuple[str, ...]:
    cells = [" / ".join(str(outcome[k]) for outcome in outcomes) for k in range(len(base))]
    largest = max((outcome[k] - base[k] for outcome in outcomes for k in range(len(base))), key=abs)
    return (f"{constant.module.removeprefix('graph.ranking.')}.{constant.name}", *cells, f"{largest:+d}")


def _size(row: tuple[str, ...]) -> tuple[int, str]:
    return -abs(int(row[-1])), row[0]


def _top_1(given: Given, constant: Constant | None, factor: float) -> list[int]:
    cases = loaded(given)
    if constant is None:
        return [hits(some) for some in cases.values()]
    with changed(constant, factor):
        return [hits(some) for some in cases.values()]
