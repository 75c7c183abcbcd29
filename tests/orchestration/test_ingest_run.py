"""An ingest run whose pipeline files change."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.config.settings import load_settings
from headrace.orchestration import ingest_run
from headrace.pipelines.modules import written


@pytest.mark.parametrize("change", ["edited", "added", "removed", "touched elsewhere"])
def test_a_run_ends_once_what_it_was_made_of_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(ingest_run, "time", SimpleNamespace(monotonic=lambda: now))
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "orders.py").write_text("VERSION = 1\n")
    settings = load_settings(home=tmp_path / "home", pipelines=folder)
    context = cast("Any", SimpleNamespace(log=logging.getLogger("run")))
    edited = ingest_run._edited(context, settings, written(settings.pipeline_folders))
    assert not edited()
    if change == "edited":
        (folder / "orders.py").write_text("VERSION = 22\n")
    elif change == "added":
        (folder / "other.py").write_text("")
    elif change == "removed":
        (folder / "orders.py").unlink()
    else:
        (tmp_path / "notes.py").write_text("")
    assert not edited(), "it looks once a second"
    now += 1.1
    with caplog.at_level(logging.INFO, "run"):
        assert edited() is (change != "touched elsewhere")
    assert ("a pipeline file has changed" in caplog.text) is (change != "touched elsewhere")
