"""Our pictures as PNG, for places that show no SVG: Slack, Jira, mail. Pure, but for the fonts it reads."""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import resvg_py

from graph.state import Language

FONTS = Path(str(files("ttf_opensans"))) / "ttf"
FAMILY = "Open Sans"  # comes with us: a slim container has no fonts
KOREAN_FAMILIES = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Nanum Gothic", "Apple SD Gothic Neo", "UnDotum")
SPARE = {"✓": "√", "✗": "×"}  # what Open Sans has in place of signs it has not
ZOOM = 2.0  # for screens that show two pixels where they say one
MAX_WIDTH = 4_000  # pixels
_HANGUL = re.compile("[가-힣]")
_STYLE = re.compile(r"(?<=<style>).*?(?=</style>)", re.DOTALL)
_DARK = re.compile(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_VARIABLE = re.compile(r"(--[\w-]+)\s*:\s*([^;}]+);?")
_USE = re.compile(r"var\((--[\w-]+)\)")
_FONT = re.compile(r"(?<![\w-])font:(\d+px)[^;}]*")


def png(svg: str, *, width: int | None = None, system_fonts: bool = True) -> bytes:
    """The picture, light, ``width`` pixels wide; twice its own size if that is not given.

    Latin, Greek and Cyrillic are drawn with a font of our own, all else with the system's: see ``labels``. Takes tens
    of milliseconds, so call it in a thread. Raises ValueError: this is no SVG, or no such width.
    """
    if width is not None and not 0 < width <= MAX_WIDTH:
        raise ValueError(f"a picture is 1 to {MAX_WIDTH} pixels wide, not {width}")
    for sign, spare in SPARE.items():
        if sign in svg and not _has(sign, system_fonts):
            svg = svg.replace(sign, spare)
    families = (*KOREAN_FAMILIES, FAMILY) if _HANGUL.search(svg) else (FAMILY,)
    return _rendered(_STYLE.sub(lambda style: _plain(style[0], families), svg), width, system_fonts)


def labels(language: Language, *, system_fonts: bool = True) -> Language:
    """In which language pictures can be labelled here: Korean takes a system font that has Hangul."""
    return "en" if language == "ko" and not _has("가", system_fonts) else language


@cache
def _has(sign: str, system_fonts: bool) -> bool:
    """Whether a font has the sign; all those that none has look the same."""
    return _alone(sign, system_fonts) != _alone("\U000f0000", system_fonts)


def _alone(sign: str, system_fonts: bool) -> bytes:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="16">{sign}</text></svg>'
    return _rendered(svg, None, system_fonts)


def _rendered(svg: str, width: int | None, system_fonts: bool) -> bytes:
    return resvg_py.svg_to_bytes(
        svg_string=svg,
        width=width,
        zoom=None if width else ZOOM,
        skip_system_fonts=not system_fonts,
        font_dirs=[str(FONTS)],
        font_family=FAMILY,
        sans_serif_family=FAMILY,
    )


def _plain(style: str, families: tuple[str, ...]) -> str:
    """The style sheet as resvg reads it: light only, without variables, and no ``font`` in one word."""
    light = _DARK.sub("", style)
    values = dict(_VARIABLE.findall(light))
    shown = _USE.sub(lambda use: values.get(use[1], use[0]), _VARIABLE.sub("", light))
    named = ",".join(f"'{family}'" for family in families)
    return _FONT.sub(lambda font: f"font-size:{font[1]};font-family:{named}", shown)
