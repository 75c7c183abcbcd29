"""A change of pipelines or models is loaded once it is complete, and a broken one is told of."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import eventually
from headrace.config.settings import load_settings
from headrace.core.errors import Retriable
from headrace.local import reload
from headrace.local.dagster_api import DagsterApi
from headrace.local.reload import Reloader

ROOT = Path(__file__).parents[2]


class Ui(DagsterApi):
    """Counts the reloads; is away for the first of them."""

    def __init__(self) -> None:
        self.asked = 0

    def reload(self, location: str = "headrace") -> str:
        self.asked += 1
        if self.asked == 1:
            raise Retriable("not there yet")
        return ""


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Ui, list[str]]]:
    monkeypatch.setattr(reload, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(reload, "_QUIET_SECONDS", 0.1)
    shutil.copytree(ROOT / "dbt_project", tmp_path / "dbt_project")
    (tmp_path / "pipelines").mkdir()
    settings = load_settings(
        home=tmp_path / "home", project_dir=tmp_path, pipelines=tmp_path / "pipelines", clickhouse_port=1
    )
    said: list[str] = []
    ui, stop = Ui(), threading.Event()
    thread = threading.Thread(target=Reloader(settings, said.append).watch, args=(ui, stop))
    thread.start()
    yield tmp_path, ui, said
    stop.set()
    thread.join()


@pytest.mark.long
def test_changes_are_loaded_and_touches_are_not(watched: tuple[Path, Ui, list[str]]) -> None:
    folder, ui, said = watched
    (folder / "pipelines" / "orders_pipeline.py").write_text("pipeline = 3\n")
    eventually(lambda: len(said) == 1, 60, "a reload")
    assert ui.asked == 2, "it was away at first"
    mart = folder / "dbt_project" / "models" / "marts" / "users" / "users_latest.sql"
    before = mart.read_text()
    mart.touch()
    mart.write_text(before + "{% if %}\n")
    eventually(lambda: len(said) == 3, 120, "a reload with the problem")
    assert said[1].startswith("dbt_project/models/marts/users/users_latest.sql:39: Expected an expression")
    mart.write_text(before)
    eventually(lambda: len(said) == 5, 120, "a reload without it")
    assert said[3] == "the dbt project is good again"
    assert ui.asked == 4
