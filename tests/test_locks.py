"""Locks between processes: taking turns, and going on without."""

from __future__ import annotations

from pathlib import Path

from headrace.locks import file_lock, turn


def test_whoever_waits_in_vain_is_told_and_may_go_on(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one.lock"
    with file_lock(path), turn(path, 0.2) as alone:
        assert not alone
    with turn(path, 0.2) as alone:
        assert alone
        with turn(path, 0.1) as other:
            assert not other
