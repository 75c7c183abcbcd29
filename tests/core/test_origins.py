"""Origins are kept as browsers send them, and what no browser sends is refused."""

from __future__ import annotations

import pytest

from headrace.core.origins import web_origin


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("https://shop.example", "https://shop.example"),
        (" https://Shop.Example/ ", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:443", "http://shop.example:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
    ],
)
def test_an_origin_is_as_browsers_send_it(said: str, sent: str) -> None:
    assert web_origin(said) == sent


@pytest.mark.parametrize(
    "said",
    ["", "shop.example", "https://", "https://shop.example/cart", "https://*.example", "https://a b", "//a"],
)
def test_what_no_browser_sends_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="no web origin"):
        web_origin(said)
