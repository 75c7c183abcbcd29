"""Compiled code runs where nothing of it can be kept, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.caching import CacheImpl
from numba.core.errors import NumbaError

import headrace.core.compiled
from headrace.contracts.wire.json_scan import _string
from headrace.core.compiled import compiled


def made_here(size: int) -> Any:
    return np.empty(size)


def twice(number: int) -> int:
    return 2 * number


def test_nowhere_to_keep_machine_code_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for locator in CacheImpl._locator_classes:
        monkeypatch.setattr(locator, "from_function", lambda *_: None)
    assert compiled(twice)(21) == 42


def test_compiled_code_leaves_references_to_its_caller() -> None:
    """Counting them at every call made decoding an event three times as slow."""
    data = np.frombuffer(b'"a \\"word\\"", 1', np.uint8)
    references = sys.getrefcount(data)
    assert _string(data, 0, data.size) == 11
    assert sys.getrefcount(data) == references
    assert _string.targetoptions["_nrt"] is False
    with pytest.raises(NumbaError):  # the option is still what keeps code from holding arrays of its own
        compiled(made_here)(3)


def test_what_was_kept_is_not_used_once_the_shared_code_has_changed(tmp_path: Path) -> None:
    shared = Path(headrace.core.compiled.__file__).read_text()
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
