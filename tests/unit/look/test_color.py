"""Colours, by figures of the standard, and those of the pages by computing them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.look.color import TEXT, contrast, ink, readable
from app.look.product import DARK, LIGHT, Product

COLORS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")
BRANDS = ["", "#4f46e5", "#ffff00", "#000000", "#ffffff", "#777777", "#e11d48", "#0f0f13", "#00ff7f"]
TEXTS = ("text", "muted", "link", "ok", "warn", "bad")


def tokens(style: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What the style sheet sets, light and dark, with later rules over earlier ones."""
    light: dict[str, str] = {}
    dark: dict[str, str] = {}
    for before, body in re.findall(r"([^{}]*\{)?\s*:root\s*\{([^}]*)\}", style):
        found = dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6})", body))
        for scheme in (dark,) if "dark" in before else (light, dark):
            scheme.update(found)
    return light, dark


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#ffffff") == 1
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#ff0000", "#ffffff") == contrast("#ffffff", "#ff0000") == pytest.approx(4.0, abs=0.005)


@given(COLORS)
def test_there_is_a_text_for_every_color(color: str) -> None:
    assert contrast(ink(color), color) >= TEXT


@pytest.mark.parametrize("backgrounds", [LIGHT, DARK])
@given(color=COLORS)
def test_there_is_a_readable_shade_of_every_color(backgrounds: tuple[str, ...], color: str) -> None:
    """It is the color itself where that is readable."""
    shade = readable(color, backgrounds)
    assert all(contrast(shade, each) >= TEXT for each in backgrounds)
    assert (shade == color) == all(contrast(color, each) >= TEXT for each in backgrounds)


@pytest.mark.parametrize("brand", BRANDS)
def test_what_the_pages_show_is_readable_light_and_dark(brand: str) -> None:
    for scheme in tokens(Product(color=brand).style()):
        for background in (scheme["bg"], scheme["surface"]):
            for name in TEXTS:
                assert contrast(scheme[name], background) >= TEXT, (name, background)
        assert contrast(scheme["on-accent"], scheme["accent"]) >= TEXT


def test_the_backgrounds_are_those_of_the_style_sheet() -> None:
    light, dark = tokens(Product().style())
    assert ((light["surface"], light["bg"]), (dark["surface"], dark["bg"])) == (LIGHT, DARK)


def test_a_products_color_is_the_styles_and_a_pale_one_is_darkened_for_text_where_it_is_light() -> None:
    light, dark = tokens(Product(color="#ffe600").style())
    assert light["accent"] == dark["accent"] == dark["link"] == "#ffe600" != light["link"]
