"""What ``headrace metabase`` says, and with which status it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

import headrace.dashboards.metabase as room
from dashboards.metabase.conftest import TABLES, WANTED
from dashboards.metabase.double import KEY, MetabaseDouble, running
from headrace.cli import app
from headrace.config import settings as config
from headrace.core.errors import NotSet


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process reads its settings once."""
    monkeypatch.setattr(config, "settings", lambda: config.load_settings(with_stack=False))


@pytest.fixture
def metabase(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetabaseDouble]:
    """A Metabase to which the settings point; what it should hold is no project's."""
    with running(MetabaseDouble(TABLES, slow=0)) as double:
        monkeypatch.setenv("HEADRACE_METABASE_URL", f"{double.url}/")
        monkeypatch.setenv("HEADRACE_METABASE_API_KEY", KEY)
        monkeypatch.setattr(room, "wanted", lambda settings: WANTED)
        yield double


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["metabase", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_plan_apply_and_diff(metabase: MetabaseDouble) -> None:
    status, text = said("plan")
    assert status == 0 and "+ database   Headrace" in text and "to do: 7 create" in text
    assert metabase.writes == []
    assert said("diff")[0] == 1
    status, text = said("apply")
    assert status == 0 and "done: 7 create" in text
    assert (
        said("apply")
        == said("plan")
        == said("diff")
        == (0, "Metabase shows what is defined: nothing to do\n")
    )
    next(iter(metabase.cards.values()))["display"] = "pie"
    status, text = said("apply")
    assert status == 1 and "edited in Metabase, left as it is: display: 'pie' -> 'line'" in text
    status, text = said("diff")
    assert status == 1 and "    display: 'pie' -> 'line'" in text
    assert said("apply", "--force")[0] == 0
    assert said("diff")[0] == 0


def test_it_is_told_as_json(metabase: MetabaseDouble) -> None:
    status, text = said("apply", "--json")
    told = json.loads(text)
    assert status == 0 and told["writes"] == len(metabase.writes) and len(told["changes"]) == 7
    assert json.loads(said("plan", "--json")[1]) == {"changes": [], "skipped": {}}


@pytest.mark.parametrize("name", ["HEADRACE_METABASE_URL", "HEADRACE_METABASE_API_KEY"])
def test_what_is_not_set_is_named(
    name: str, metabase: MetabaseDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(NotSet, match=f"{name} is not set; docs/metabase.md"):
        CliRunner().invoke(app, ["metabase", "plan"], catch_exceptions=False)
    assert metabase.asked == []


def test_statements_of_the_user_hold_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BI_PASSWORD", "s3cret")
    status, text = said("user", "--sql")
    assert status == 0 and "GRANT SELECT ON `analytics`.* TO `headrace_bi`;" in text and "s3cret" not in text
    assert "REVOKE SELECT ON `analytics`.`users_latest` FROM `headrace_bi`;" in text
