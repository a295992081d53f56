"""Find fonts for names in any language, such as those of labels and data files, in charts."""

import contextlib

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text

# Linux, Windows and macOS bring these along.
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Heiti SC", "Heiti TC"),
    *("STHeiti", "Arial Unicode MS"),
)


def choose_fonts(figure: Figure) -> None:
    """Draw texts with a Chinese font too, and escape what no font has; a dollar sign starts no formula."""
    families = _font_families()
    for text in figure.findobj(Text):
        drawn = text.get_text().replace("$", r"\$")
        for character in _lacking(drawn, families):
            drawn = drawn.replace(character, character.encode("unicode_escape").decode())
        text.set(text=drawn, fontfamily=families)


def is_drawable(text: str) -> bool:
    """Return whether the fonts have all characters of a text."""
    return not _lacking(text, _font_families())


def _lacking(text: str, families: list[str]) -> set[str]:
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return {character for character in text if not any(font.get_char_index(ord(character)) for font in fonts)} - {"\n"}


def _font_families() -> list[str]:
    """Return the usual font families, and after them the first Chinese one that is installed."""
    # Matplotlib keeps its list of fonts for good, so those that were installed later are missing there.
    for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):
            fontManager.addfont(path)
    installed = fontManager.get_font_names()
    return [*rcParams["font.family"], *[name for name in CHINESE_FONTS if name in installed][:1]]
