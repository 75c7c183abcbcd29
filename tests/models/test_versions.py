"""Versions of the dbt project: what is named when it breaks, and what is used meanwhile."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Fatal
from headrace.models import project as models
from headrace.models import versions as dbt_versions
from headrace.models.dbt_errors import ProjectProblem, changed_files, explain

ROOT = Path(__file__).parents[2]
MART = "models/marts/users/users_latest.sql"
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the project as it is has been parsed once."""
    home = tmp_path_factory.mktemp("a home")
    assert dbt_versions.current(load_settings(home=home, clickhouse_port=1)).problem is None
    return home


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    """A checkout of one's own with that home."""
    shutil.copytree(ROOT / "dbt_project", tmp_path / "dbt_project")
    return load_settings(home=home, project_dir=tmp_path, clickhouse_port=1)


def append(text: str, file: str = MART) -> Edit:
    def edit(project: Path) -> None:
        path = project / file
        path.write_text((path.read_text() if path.exists() else "") + text)

    return edit


def twin(project: Path) -> None:
    shutil.copy(project / MART, project / "models/staging/users_latest.sql")


BAD = "models/marts/bad.yml"
#: Beside the description that is there, and after it.
TWICE = "models/marts/users/users_latest_again.yml"
LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}\n"
MACRO = "{% macro x() %}\n{{ a b }}\n{% endmacro %}\n"
#: What is edited, where the mistake is, and a part of what is said.
MISTAKES: dict[str, tuple[Edit, str, str]] = {
    "refers to nothing": (append("-- {{ ref('nothing') }}\n"), f"{MART}:39", "'nothing' which was not found"),
    "YAML": (append("models:\n  - name: x\n   bad: [\n", BAD), f"{BAD}:3", "near line 3"),
    "described twice": (
        append("models:\n  - name: users_latest\n", TWICE),
        f"{TWICE}:2",
        "two schema.yml entries",
    ),
    "not UTF-8": (lambda project: (project / MART).write_bytes(b"select '\xff\xfe'"), MART, "utf-8"),
}
#: The same with what dbt 1.11 says of it: to ask dbt takes seconds.
SAID: dict[str, tuple[Edit, str, str, str]] = {
    "Jinja": (
        append("{% if %}\n"),
        "Compilation Error in model users_latest (models/marts/users/users_latest.sql)\n"
        "  Expected an expression, got 'end of statement block'\n    line 39\n      {% if %}",
        f"{MART}:39",
        "Expected an expression, got 'end of statement block' {% if %}",
    ),
    "no such macro": (
        append("{{ no_macro() }}\n"),
        "Runtime Error\n  Compilation Error in model users_latest (models/marts/users/users_latest.sql)\n"
        "    'no_macro' is undefined. Check for typos.",
        f"{MART}:39",
        "'no_macro' is undefined. Check for typos.",
    ),
    "YAML without a name": (
        append("models:\n  - nam: x\n", BAD),
        "Parsing Error\n  The schema file at models/marts/bad.yml is invalid because a list element for 'models' does "
        "not have a name attribute.",
        f"{BAD}:1",
        "The schema file at models/marts/bad.yml is invalid because a list element for 'models' does not have a name "
        "attribute.",
    ),
    "a macro's file": (
        append(MACRO, "macros/bad.sql"),
        "Compilation Error\n  expected token 'end of print statement', got 'b'\n    line 2\n      {{ a b }}",
        "macros/bad.sql:2",
        "expected token 'end of print statement', got 'b' {{ a b }}",
    ),
    "dbt_project.yml": (
        append("name: [\n", "dbt_project.yml"),
        "\x1b[0m19:16:53  Encountered an error:\nRuntime Error\n  Syntax error near line 80\n"
        "  ------------------------------\n  78 | +sharding_key: x\n  79 | name: [\n\n  Raw Error:\n"
        "  ------------------------------\n  while parsing a flow node\n"
        '  did not find expected node content\n    in "<unicode string>", line 80, column 1',
        "dbt_project.yml:80",
        "Syntax error near line 80 while parsing a flow node did not find expected node content",
    ),
    "two of one name": (
        twin,
        'Compilation Error\n  dbt found two models with the name "users_latest".\n\n  To fix this, rename one:\n'
        "  - model.headrace.users_latest (models/marts/users/users_latest.sql)\n"
        "  - model.headrace.users_latest (models/staging/users_latest.sql)",
        "models/staging/users_latest.sql",
        'dbt found two models with the name "users_latest". To fix this, rename one: - model.headrace.users_latest '
        "(models/marts/users/users_latest.sql) - model.headrace.users_latest (models/staging/users_latest.sql)",
    ),
    "words of its own": (
        append("{{ exceptions.raise_compiler_error('own words') }}\n"),
        "Compilation Error in model users_latest (models/marts/users/users_latest.sql)\n  own words",
        MART,
        "own words",
    ),
}


@pytest.mark.parametrize(("edit", "output", "place", "said"), SAID.values(), ids=SAID)
def test_what_dbt_says_becomes_file_line_and_reason(
    tmp_path: Path, edit: Edit, output: str, place: str, said: str
) -> None:
    project = tmp_path / "dbt_project"
    shutil.copytree(ROOT / "dbt_project", project)
    before = dbt_versions.checksums(project)
    edit(project)
    changed = changed_files(before, dbt_versions.checksums(project))
    assert str(explain(output, project, changed)) == f"dbt_project/{place}: {said}"


@pytest.mark.long
@pytest.mark.parametrize(("edit", "place", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_file_and_line_and_the_last_good_version_is_used(
    settings: Settings, edit: Edit, place: str, said: str
) -> None:
    good = dbt_versions.current(settings)
    edit(settings.project_dir / "dbt_project")
    found = dbt_versions.current(settings)
    assert found.usable == good.usable
    assert models.manifest(settings).is_file()
    assert str(found.problem).startswith(f"dbt_project/{place}"), str(found.problem)
    assert said in found.complaint and "\n" not in found.complaint
    assert "models go on as of the last version" in found.complaint
    shutil.rmtree(settings.project_dir / "dbt_project")
    shutil.copytree(ROOT / "dbt_project", settings.project_dir / "dbt_project")
    assert dbt_versions.current(settings) == good, "repaired"


@pytest.mark.long
def test_what_was_refused_is_not_parsed_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    append("{% if %}\n")(settings.project_dir / "dbt_project")
    found = dbt_versions.current(settings)
    versions = settings.home / "dbt" / "versions"
    assert not [one for one in versions.iterdir() if one.name.startswith("new-")], "nothing is left over"
    monkeypatch.setattr(dbt_versions, "_parse", lambda _: pytest.fail("parsed again"))
    assert dbt_versions.current(settings) == found


@pytest.mark.long
def test_what_is_not_the_projects_fault_is_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    append("\n-- another version\n")(settings.project_dir / "dbt_project")
    slow = settings.model_copy(update={"parse_seconds": 0.01})
    assert "within 0.01 s" in str(dbt_versions.current(slow).problem)
    monkeypatch.setattr(dbt_versions, "_compile", lambda *_: dbt_versions._failed(
        explain("[Errno 28] No space left on device", Path("x")), lasting=False))  # fmt: skip
    append("\n-- and one more\n")(settings.project_dir / "dbt_project")
    assert "No space left" in str(dbt_versions.current(settings).problem)
    monkeypatch.undo()
    assert dbt_versions.current(settings).problem is not None, "but not at once"
    monkeypatch.setattr(dbt_versions, "_AGAIN_SECONDS", 0.0)
    assert dbt_versions.current(settings).problem is None


@pytest.mark.long
def test_a_model_that_renders_for_ever_is_stopped_and_named(settings: Settings) -> None:
    append(LOOP)(settings.project_dir / "dbt_project")
    found = dbt_versions.current(settings.model_copy(update={"parse_seconds": 15.0}))
    assert found.usable is not None
    assert str(found.problem).startswith(f"dbt_project/{MART}: dbt did not parse the project within 15 s")


@pytest.mark.long
def test_a_new_home_with_a_broken_project_has_no_models_and_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    append("{% if %}\n")(settings.project_dir / "dbt_project")
    fresh = settings.model_copy(update={"home": tmp_path / "home"})
    assert dbt_versions.current_if_parsed(fresh) == dbt_versions.Project(None), (
        "whoever only looks parses nothing"
    )
    found = dbt_versions.current(fresh)
    assert found.usable is None
    assert found.complaint.startswith(f"dbt_project/{MART}:39: Expected an expression")
    assert "there are no models until it is repaired" in found.complaint
    assert dbt_versions.current_if_parsed(fresh) == found
    with pytest.raises(Fatal, match=r"users_latest\.sql:39"):
        models.manifest(fresh)


def test_without_a_project_or_with_one_that_cannot_be_read_the_place_is_named(
    settings: Settings, tmp_path: Path
) -> None:
    fresh = settings.model_copy(update={"home": tmp_path / "home"})
    (settings.project_dir / "dbt_project/models/dangling.sql").symlink_to("nowhere.sql")
    assert str(dbt_versions.current(fresh).problem).startswith(
        "dbt_project/models/dangling.sql: it cannot be"
    )
    shutil.rmtree(settings.project_dir / "dbt_project")
    assert "set HEADRACE_PROJECT_DIR" in str(dbt_versions.current(fresh).problem)


@pytest.mark.long
def test_a_setting_that_is_in_the_models_makes_another_version(settings: Settings) -> None:
    before = dbt_versions.current(settings).usable
    wider = dbt_versions.current(settings.model_copy(update={"window_seconds": 120})).usable
    assert before and wider and before.id != wider.id
    nodes = [models.read(one.manifest)["nodes"] for one in (before, wider)]
    sql = [one["model.headrace.event_metrics"]["compiled_code"] for one in nodes]
    assert sql[0] != sql[1]


def test_versions_do_not_pile_up(settings: Settings, tmp_path: Path) -> None:
    fresh = settings.model_copy(update={"home": tmp_path / "home"})
    versions = tmp_path / "home" / "dbt" / "versions"
    for number in range(dbt_versions._KEPT + 2):
        dbt_versions._note(versions / f"refused-{number}", ProjectProblem("no"), lasting=True)
        (versions / f"good-{number}").mkdir()
        for folder in (versions / f"refused-{number}", versions / f"good-{number}"):
            os.utime(folder, (number, number))
    dbt_versions._tidy(fresh)
    left = {int(one.name.rpartition("-")[2]) for one in versions.iterdir()}
    assert left == set(range(2, dbt_versions._KEPT + 2)), "the newest stay"
    assert len(list(versions.iterdir())) == 2 * dbt_versions._KEPT


@pytest.mark.long
def test_a_version_that_dagster_refuses_is_not_used(settings: Settings) -> None:
    good = dbt_versions.current(settings)
    append("\n-- parses\n")(settings.project_dir / "dbt_project")
    newer = dbt_versions.current(settings)
    assert newer.usable and newer.usable != good.usable
    found = dbt_versions.refuse(settings, newer.usable, "ValueError: no number")
    assert found.usable == good.usable
    assert str(found.problem) == f"dbt_project/{MART}: ValueError: no number"
    assert dbt_versions.current(settings) == found


def test_a_traceback_is_its_last_line(tmp_path: Path) -> None:
    said = 'Traceback (most recent call last):\n  File "x.py", line 3, in y\nTypeError: no\n'
    assert explain(said, tmp_path).said == "TypeError: no"
    assert json.dumps(explain("", tmp_path).said) == '"dbt refuses the project and says nothing"'
