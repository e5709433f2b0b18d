"""Pictures as PNG: drawn as their SVG says, also where the system has no fonts."""

import struct
import zlib

import pytest

from app.pictures_png import labels, png
from app.report import chart, topology
from tests.app.notifiers.stories import report

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><text y="15">{}</text></svg>'


def size(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def colours(picture: bytes) -> set[bytes]:
    """Of its pixels, as RGBA, before the row filters are undone: enough to tell one picture from another."""
    chunks, at = b"", 8
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        if picture[at + 4 : at + 8] == b"IDAT":
            chunks += picture[at + 8 : at + 8 + length]
        at += length + 12
    raw = zlib.decompress(chunks)
    return {raw[n : n + 4] for n in range(1, len(raw) - 4, 4)}


def test_a_picture_has_twice_its_own_size_or_the_width_asked_for() -> None:
    drawn = chart(report(), report().evidence[0])
    assert size(png(drawn)) == (1120, 320)
    assert size(png(drawn, width=280)) == (280, 80)


@pytest.mark.parametrize("width", [0, -1, 4001])
def test_other_widths_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match="1 to 4000"):
        png(chart(report(), report().evidence[0]), width=width)


def test_text_is_drawn_without_fonts_of_the_system() -> None:
    said, nothing = (png(BLANK.format(words), system_fonts=False) for words in ("payment", ""))
    assert said != nothing
    assert png(BLANK.format("✓"), system_fonts=False) == png(BLANK.format("√"), system_fonts=False)


def test_the_style_sheet_takes_effect() -> None:
    drawn = topology(report())
    styled, bare = png(drawn, system_fonts=False), png(drawn.replace("<style>", "<style>/*"), system_fonts=False)
    assert len(colours(styled)) > len(colours(bare))
    assert png(drawn, system_fonts=False) == styled  # equal input, equal bytes
    assert png(drawn.replace("#b3261e", "#00ff00", 1), system_fonts=False) != styled


def test_where_no_font_has_hangul_labels_are_english() -> None:
    assert labels("ko", system_fonts=False) == "en"
    assert labels("en", system_fonts=False) == "en"


def test_no_svg_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        png("<b>no picture</b>")
