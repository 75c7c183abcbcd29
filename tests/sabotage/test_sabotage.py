"""The short form of ``make sabotage``: what is wrong is named by file and line, and everything else is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster import Definitions

from conftest import Stack
from headrace.config.settings import Settings, adopt, settings
from headrace.core.errors import HeadraceError
from headrace.health import doctor, status
from headrace.models import project as models
from headrace.orchestration import definitions
from headrace.pipelines import discover
from headrace.streams.stream import streams
from headrace.warehouse.migrations.files import FOLDER, read_migrations
from sabotage.installation import planted
from sabotage.mistakes import (
    CONTRACTS,
    MIGRATIONS,
    MODELS,
    PIPELINES,
    SETTINGS,
    STATE,
    UNTAGGED,
    WELL,
    Mistake,
    Setting,
)

FILES = [*PIPELINES, *CONTRACTS]
OTHERS = {"events", "metrics", "well"}


def test_there_are_enough_mistakes() -> None:
    assert len(FILES) + len(MODELS) + len(MIGRATIONS) + len(SETTINGS) + len(STATE) >= 40


@dataclass(frozen=True)
class House:
    """An installation on the embedded stack with a copy of the dbt project."""

    settings: Settings
    environment: dict[str, str]
    pipelines: Path
    project: Path

    def place(self, name: str) -> Path:
        return {
            "pipelines": self.pipelines,
            "models": self.project / "dbt_project",
            "home": self.settings.home,
        }[name]


@pytest.fixture(scope="module")
def house(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("sabotage")
    pipelines, project = root / "my pipelines", root / "checkout"
    pipelines.mkdir()
    (pipelines / "well_pipeline.py").write_bytes(WELL.source.replace(b"Kafka('well')", b"Files('well')"))
    for folder in ("dbt_project", "dagster_home"):
        shutil.copytree(
            Path(__file__).parents[2] / folder,
            project / folder,
            ignore=shutil.ignore_patterns("target", "logs"),
        )
    before = dict(os.environ)
    own = {
        "HEADRACE_PIPELINES": str(pipelines),
        "HEADRACE_PROJECT_DIR": str(project),
        "HEADRACE_PIPELINE_SECONDS": "10",
    }
    config = adopt({**stack.environment, **own})
    models.manifest(config)  # it has been well once
    yield House(config, {**stack.environment, **own}, pipelines, project)
    os.environ.clear()
    os.environ.update(before)
    settings.cache_clear()


@pytest.fixture(autouse=True)
def _environment(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """``doctor`` reads the settings anew."""
    for name, value in house.environment.items():
        monkeypatch.setenv(name, value)


def said_by_doctor() -> str:
    return "\n".join(f"{'✓' if one.ok else '✗'} {one.what}  {one.said}" for one in doctor.examine())


def said_by_status(config: Settings) -> str:
    found = streams(config, retry=False)
    try:
        health = status.examine(found.values(), config)
        return "\n".join(" ".join(line) for line in status.lines(health))
    finally:
        for stream in found.values():
            stream.close()


def said_by_dagster(defs: Definitions) -> str:
    specs = (
        defs.get_all_asset_specs() if hasattr(defs, "get_all_asset_specs") else defs.resolve_all_asset_specs()
    )
    return "\n".join(f"{spec.key.to_user_string()} {spec.description}" for spec in specs)


@pytest.mark.parametrize("mistake", FILES, ids=str)
def test_a_broken_pipeline_file_is_named_and_takes_nobody_down(house: House, mistake: Mistake) -> None:
    with planted(house.pipelines, mistake.files):
        found = discover(house.pipelines, seconds=house.settings.pipeline_seconds)
    said = "\n".join(f"{name}: {why}" for name, why in found.broken.items())
    assert set(found.pipelines) == OTHERS
    assert len(found.broken) == 1
    assert re.search(mistake.named, said, re.DOTALL), said


@pytest.mark.long
def test_all_of_them_at_once_are_named_wherever_a_person_looks(house: House) -> None:
    mistakes = [*FILES, *UNTAGGED]
    files = {path: content for mistake in mistakes for path, content in mistake.files.items()}
    with planted(house.pipelines, files):
        places = {
            "doctor": said_by_doctor(),
            "status": said_by_status(house.settings),
            "Dagster": said_by_dagster(definitions.build(house.settings)),
        }
    for where, said in places.items():
        missing = [m.name for m in mistakes if not re.search(m.named, said, re.DOTALL)]
        assert not missing, f"{where} does not name {missing}:\n{said}"
    defs = definitions.build(house.settings)
    assert "broken/" not in said_by_dagster(defs), "what is repaired is not named any more"


def assets(defs: Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.get_repository_def().asset_graph.get_all_asset_keys()}


@pytest.mark.long
@pytest.mark.parametrize("mistake", MODELS, ids=str)
def test_ingestion_does_not_depend_on_the_models(house: House, mistake: Mistake) -> None:
    with planted(house.place("models"), mistake.files):
        defs = definitions.build(house.settings)
        places = {
            "doctor": said_by_doctor(),
            "status": said_by_status(house.settings),
            "Dagster": said_by_dagster(defs),
        }
    assert {f"{room}/{stream}" for room in ("lake", "warehouse") for stream in OTHERS} <= assets(defs)
    for where, said in places.items():
        assert re.search(mistake.named, said, re.DOTALL), f"{where} does not name it:\n{said}"
    again = definitions.build(house.settings)
    assert "marts/event_metrics" in assets(again)
    assert not re.search(mistake.named, said_by_doctor().split("dbt project")[1].splitlines()[0])


@pytest.mark.parametrize("mistake", MIGRATIONS, ids=str)
def test_a_broken_migration_is_named(tmp_path: Path, mistake: Mistake) -> None:
    shutil.copytree(FOLDER, tmp_path / "migrations")
    with planted(tmp_path / "migrations", mistake.files), pytest.raises(HeadraceError) as refused:
        for one in read_migrations(tmp_path / "migrations"):
            one.statements("raw")
    assert re.search(mistake.named, str(refused.value))


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_wrong_setting_is_one_line_that_names_it(house: House, setting: Setting) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "doctor"],
        env={**os.environ, **setting.environment, "COLUMNS": "400"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert re.search(setting.named, said), said


@pytest.mark.long
@pytest.mark.parametrize("mistake", STATE, ids=str)
def test_a_spoilt_file_of_state_stops_nobody(house: House, mistake: Mistake) -> None:
    with planted(house.settings.home, mistake.files):
        models.manifest(house.settings)
        assert "Traceback" not in said_by_doctor()
        said_by_status(house.settings)
        found = streams(house.settings)
        for stream in found.values():
            stream.publish()
            stream.close()
        assert {f"lake/{stream}" for stream in OTHERS} <= assets(definitions.build(house.settings))
