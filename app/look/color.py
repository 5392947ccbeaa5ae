"""Colours that people can tell apart: contrast as WCAG 2.2 defines it (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).

A colour is `#rrggbb`.
"""

from __future__ import annotations

TEXT = 4.5
"""The least contrast of text with what is behind it, at level AA."""

INKS = ("#ffffff", "#000000")

STEPS = 50
"""Parts of the way to white or to black in which a colour is changed: of 2 % each."""


def contrast(one: str, other: str) -> float:
    """From 1 (the same) to 21 (black on white)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink(background: str) -> str:
    """Of white and black the one that is read better on this colour; the contrast is 4.58 at least."""
    return max(INKS, key=lambda each: contrast(each, background))


def readable(color: str, backgrounds: tuple[str, ...]) -> str:
    """The colour itself, or the nearest shade of it in which text can be read on each of these backgrounds, which are
    all light or all dark."""
    goal = "#000000" if _luminance(backgrounds[0]) > 0.18 else "#ffffff"
    shades = (_mixed(color, goal, step / STEPS) for step in range(STEPS + 1))
    return next(shade for shade in shades if all(contrast(shade, each) >= TEXT for each in backgrounds))


def _mixed(color: str, other: str, share: float) -> str:
    pairs = zip(_channels(color), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    red, green, blue = (_linear(each / 255) for each in _channels(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(share: float) -> float:
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)
