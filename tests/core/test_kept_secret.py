"""A secret that is made once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from headrace.core.errors import Fatal
from headrace.core.kept_secret import kept_secret


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / "bi.password"
    made = kept_secret(path)
    assert len(made) >= 32 and kept_secret(path) == made == path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["bi.password"]
    assert kept_secret(tmp_path / "other") != made


def test_all_who_ask_at_once_get_the_same(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(kept_secret(tmp_path / "secret"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(Fatal, match="is empty, and should hold a secret; remove it"):
        kept_secret(tmp_path / "secret")
    with pytest.raises(Fatal, match="cannot be read"):
        kept_secret(tmp_path)
