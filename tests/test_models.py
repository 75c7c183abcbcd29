"""The dbt project as data."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.models import share_parsing, target_folder
from headrace.settings import load_settings


def test_what_was_parsed_last_is_brought_along_unless_what_is_there_is_newer(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    known, own = target_folder(settings) / "partial_parse.msgpack", tmp_path / "own" / "partial_parse.msgpack"
    share_parsing(settings, own.parent)
    assert not own.parent.exists()
    known.parent.mkdir(parents=True)
    known.write_bytes(b"first")
    share_parsing(settings, own.parent)
    assert own.read_bytes() == b"first"
    own.write_bytes(b"parsed here since")
    os.utime(known, ns=(0, own.stat().st_mtime_ns - 1))
    share_parsing(settings, own.parent)
    assert own.read_bytes() == b"parsed here since"
    known.write_bytes(b"parsed for another port")
    os.utime(known, ns=(0, own.stat().st_mtime_ns + 1_000_000_000))
    share_parsing(settings, own.parent)
    assert own.read_bytes() == b"parsed for another port"
