"""Files of definitions are followed: new ones are answered by, a broken one is named and goes on as it was."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from headrace.config.settings import Settings, load_settings
from headrace.metrics import Catalogue, DefinitionError
from headrace.serving import api, description
from headrace.serving.answers import Answers, Limits
from headrace.serving.cache import Memory
from headrace.serving.definitions import Definitions
from headrace.serving.recent import Recent

FAMILY = """
family: {name}
stream: events
owner: team:web
models:
  session_metrics: {{time: started_at, day: session_date}}
metrics:
  {metric}: {{label: {label}, measure: sum(events), models: [session_metrics]}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "headrace.toml").write_text("")
    return load_settings(home=tmp_path / ".headrace", project_dir=tmp_path)


def put(settings: Settings, name: str, text: str) -> Path:
    assert settings.project is not None
    path = settings.project.metrics / name
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))  # two writes within one tick of the clock differ, too
    return path


def said(name: str, label: str = "Own") -> str:
    return FAMILY.format(name=name, metric=f"{name}_metric", label=label)


def test_a_broken_file_is_named_and_goes_on_as_it_was(settings: Settings, caplog: Any) -> None:
    put(settings, "a.yml", said("a"))
    never = put(settings, "never.yml", "family: [")
    followed = Definitions(settings)
    first = followed.load()
    assert "a_metric" in first.metrics and "events" in first.metrics
    assert f"{never}" in caplog.text and "its metrics are left out" in caplog.text
    caplog.clear()
    broken = put(settings, "a.yml", said("a").replace("measure", "mesure"))
    put(settings, "b.yml", said("b"))
    found = followed.load()
    assert found.metrics["a_metric"].label == "Own" and "b_metric" in found.metrics
    assert f"{broken}" in caplog.text and "mesure" in caplog.text and "goes on as it was" in caplog.text
    caplog.clear()
    followed.load()
    assert not caplog.text, "it is said once"
    caplog.set_level(logging.INFO)
    put(settings, "a.yml", said("a", "Mended"))
    assert followed.load().metrics["a_metric"].label == "Mended"
    assert "loads again" in caplog.text
    broken.unlink()
    assert "a_metric" not in followed.load().metrics, "a file that is gone is no broken one"


def test_the_api_answers_by_the_files_as_they_are_now(settings: Settings) -> None:
    followed = Definitions(settings)
    answers = Answers(followed.load(), None, None, Memory(1 << 20), Limits())  # type: ignore[arg-type]
    services: Any = SimpleNamespace(answers=answers, recent=Recent())
    app = Starlette(routes=[*api.routes(services), *description.routes(services)])
    with TestClient(app) as client:

        def listed() -> set[str]:
            return {one["name"] for one in client.get("/v1/metrics").json()["metrics"]}

        assert "a_metric" not in listed()
        put(settings, "a.yml", said("a"))
        answers.use(followed.load())
        assert "a_metric" in listed() and "a_metric" in client.get("/openapi.json").text


@pytest.mark.timeout(60)
def test_files_are_read_once_they_are_quiet(settings: Settings, caplog: Any) -> None:
    """Also after two files that exclude each other: all goes on as it was until one of them is another."""
    used: list[Catalogue] = []

    async def until(metric: str) -> None:
        async with asyncio.timeout(30):
            for _ in iter(lambda: bool(used) and metric in used[-1].metrics, True):
                await asyncio.sleep(0.01)

    async def story() -> None:
        followed = Definitions(settings)
        followed.load()
        following = asyncio.create_task(followed.follow(used.append, 0.02))
        async with asyncio.timeout(30):
            put(settings, "a.yml", said("a"))
            await until("a_metric")
            put(settings, "b.yml", said("a"))
            for _ in iter(lambda: "goes on as it was" in caplog.text, True):
                await asyncio.sleep(0.01)
            assert len(used) == 1
            put(settings, "b.yml", said("b"))
            await until("b_metric")
        assert "a_metric" in used[-1].metrics
        following.cancel()

    asyncio.run(story())


def test_two_files_with_one_name_are_refused_at_a_start(settings: Settings) -> None:
    put(settings, "a.yml", said("a"))
    put(settings, "b.yml", said("a"))
    with pytest.raises(DefinitionError, match="already that of"):
        Definitions(settings).load()
