"""Vendored files are those of the packages that the list beside them names, unchanged."""

from __future__ import annotations

import hashlib

from headrace.serving.page.site import STATIC

SHA256 = {
    "htmx/LICENSE": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
    "htmx/htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "uplot/LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uplot/uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot/uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_vendored_files_are_unchanged() -> None:
    folder = STATIC / "vendor"
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert found == SHA256


def test_nothing_of_our_own_asks_another_host() -> None:
    for path in (STATIC / "page.js", STATIC / "page.css", *(STATIC.parent / "templates").rglob("*.html")):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert (
            "http:" not in text and "https:" not in text and "url(" not in text.replace('content="0;url=', "")
        ), path
