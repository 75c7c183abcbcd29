"""Compiled code runs where nothing of it can be kept, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import CacheImpl

import headrace.compiled
from headrace.compiled import compiled


def twice(number: int) -> int:
    return 2 * number


def test_nowhere_to_keep_machine_code_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for locator in CacheImpl._locator_classes:
        monkeypatch.setattr(locator, "from_function", lambda *_: None)
    assert compiled(twice)(21) == 42


def test_what_was_kept_is_not_used_once_the_shared_code_has_changed(tmp_path: Path) -> None:
    shared = Path(headrace.compiled.__file__).read_text()
    (tmp_path / "user.py").write_text(
        "from shared import compiled, answer\n\n@compiled\ndef ask():\n    return answer()\n\nprint(ask(), end='')\n"
    )
    said = []
    for number in (1, 1, 2):
        (tmp_path / "shared.py").write_text(f"{shared}\n\n@compiled\ndef answer():\n    return {number}\n")
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": str(tmp_path / "kept"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", "import user"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(done.stdout)
    assert said == ["1", "1", "2"]
    assert list((tmp_path / "kept").rglob("*.nbi")), "nothing was kept, so this shows nothing"
