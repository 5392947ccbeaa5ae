"""The product's settings: what is shown, and what is refused with a word on what to do."""

from __future__ import annotations

import base64
from pathlib import Path
from xml.etree import ElementTree

import pytest

from app.look.product import LOGO_BYTES, Product
from app.process.settings import Settings, SettingsError

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'


def test_without_settings_it_has_a_name_and_a_mark_of_its_own() -> None:
    assert Product.of(Settings().checked()) == Product("Workspaces", "", "", "")


@pytest.mark.parametrize(("name", "content", "kind"), [("a.png", PNG, "image/png"), ("a.SVG", SVG, "image/svg+xml")])
def test_a_logo_is_a_file_or_a_url(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    for given in (str(tmp_path / name), url):
        assert Product.of(Settings(product_logo=given)).logo == url


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("missing.png", "can't be read"),
        ("a.gif", "ends in .svg or .png"),
        ("https://example.com/a.png", "can't be read"),
        ("data:image/gif;base64,R0lG", "looks like data:image"),
        ("data:image/png;base64,R0l", "cut off"),
        ("data:image/png;base64,R0lG", "neither a PNG nor an SVG"),
        ("data:image/svg+xml,<svg onload=alert(1)>", "looks like data:image"),
        (f"data:image/svg+xml;base64,{base64.b64encode(SVG + b' ' * LOGO_BYTES).decode()}", "make it smaller"),
    ],
)
def test_a_logo_that_cant_be_shown_says_what_to_do(given: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"PRODUCT_LOGO.*{told}"):
        Product.of(Settings(product_logo=given))


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.svg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SettingsError, match="make it smaller"):
        Product.of(Settings(product_logo=str(path)))


@pytest.mark.parametrize(
    "given",
    [
        {"product_name": ""},
        {"product_name": " "},
        {"product_name": "a" * 61},
        {"product_name": "a\nb"},
        {"product_url": "javascript:alert(1)"},
        {"product_url": "example.com"},
        {"product_url": "https://example.com/a b"},
        {"product_color": "red"},
        {"product_color": "#fff"},
        {"product_color": "#000000;}"},
    ],
)
def test_a_bad_value_is_refused_by_its_name(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(SettingsError, match=name.upper()):
        Settings(**given).checked()  # type: ignore[arg-type]


def test_the_icon_is_the_logo_or_the_mark_in_the_products_colour() -> None:
    mark, kind = Product(color="#ab12cd").icon()
    assert kind == "image/svg+xml"
    drawn = ElementTree.fromstring(mark)
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert "--accent: #ab12cd" in "".join(drawn.itertext())
    assert Product(logo="data:image/png;base64,iVBORw==").icon() == (b"\x89PNG", "image/png")


def test_what_products_have_is_taken() -> None:
    Settings(
        product_name="Åcme & Söhne <b>", product_url="https://app.example.com/#/home?a=b", product_color="#AbCdEf"
    ).checked()
