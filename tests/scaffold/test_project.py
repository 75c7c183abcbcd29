"""``headrace init`` makes a project that is whole, overwrites nothing, and says the next step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

import commands
from headrace.core.errors import Fatal
from headrace.metrics.loading import Widths, read
from headrace.models import sources
from headrace.pipelines import discover
from headrace.scaffold import project
from headrace.scaffold.project import create

PERSON = {
    "GIT_AUTHOR_NAME": "A Person", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A Person", "GIT_COMMITTER_EMAIL": "a@example.com",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _git_of_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git with an identity from the environment, and without anybody's configuration."""
    for name, value in {**PERSON, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def texts(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def test_a_project_is_whole_and_committed(tmp_path: Path) -> None:
    made = create(tmp_path / "My shop-2.0")
    assert made.name == "my_shop_2_0"
    assert made.repository.committed
    assert git(made.root, "status", "--porcelain") == ""
    assert git(made.root, "log", "--format=%an %s") == "A Person my_shop_2_0: a project on Headrace\n"
    found = texts(made.root)
    assert set(found) == set(made.written)
    assert set(found) >= {
        "headrace.toml", "pyproject.toml", "Makefile", "README.md", ".gitignore", ".github/workflows/ci.yml",
        "pipelines/orders_pipeline.py", "contracts/orders.py", "dbt/dbt_project.yml", "dbt/packages.yml",
        "dbt/models/sources/orders.yml", "dbt/macros/headrace.sql", "tests/test_streams.py",
        "data/orders/sample.csv", "metrics/orders.yml", "migrations/README.md",
    }  # fmt: skip
    assert not [name for name, text in found.items() if re.search(r"@(project|requirement|sources)@", text)]
    assert not [name for name, text in found.items() if text and not text.endswith("\n")]
    for name, text in found.items():
        if name.endswith((".yml", ".toml")):
            assert (tomllib.loads if name.endswith(".toml") else yaml.safe_load)(text), name
    assert yaml.safe_load(found["dbt/dbt_project.yml"])["name"] == "my_shop_2_0"
    assert tomllib.loads(found["pyproject.toml"])["project"]["dependencies"][0].startswith(
        "headrace[local]>="
    )


def test_its_stream_loads_and_its_sources_are_as_its_contract(tmp_path: Path) -> None:
    made = create(tmp_path / "shop")
    found = discover(made.root / "pipelines")
    assert "orders" in found.pipelines and not found.broken
    assert sources.compare(made.root / "dbt", found) == []


def test_its_metrics_are_those_of_its_mart(tmp_path: Path) -> None:
    made = create(tmp_path / "shop")
    found = read(made.root / "metrics" / "orders.yml", Widths())
    mart = yaml.safe_load((made.root / "dbt/models/marts/orders_daily.yml").read_text())["models"][0]
    columns = {column["name"] for column in mart["columns"]}
    assert set(found.models) == {mart["name"]}
    assert {column for metric in found.metrics.values() for column in metric.columns} <= columns
    assert {"order_date", *found.dimensions} <= columns


def test_its_code_is_as_tidy_as_ours(tmp_path: Path) -> None:
    root = create(tmp_path / "shop").root
    for command in (
        ["check", "--select", "E,F,W,I,B,UP,SIM,RUF,D", "--ignore", "D105,D107"],
        ["format", "--check"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "110", "--no-cache",
             *(["--config", "lint.pydocstyle.convention='google'",
                "--config", "lint.per-file-ignores={'tests/*'=['D']}"] if command[0] == "check" else []), "."],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_empty_one_has_every_folder_and_no_stream(tmp_path: Path) -> None:
    made = create(tmp_path / "shop", example=False)
    assert not [name for name in made.written if "orders" in name]
    for folder in ("pipelines", "contracts", "data", "dbt/models", "metrics", "migrations", "tests"):
        assert (made.root / folder).is_dir()
    assert made.repository.committed
    assert set(discover(made.root / "pipelines").pipelines) == {"events", "metrics"}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    for name in ("README.md", "a", "b", "c"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(
        Fatal, match=r"is not empty: it holds README\.md, a, b and 1 more; choose another folder"
    ):
        create(tmp_path, "shop")
    assert texts(tmp_path) == dict.fromkeys(("README.md", "a", "b", "c"), "mine")


def test_force_adds_what_is_missing_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "Makefile").symlink_to(tmp_path / "nowhere")
    made = create(tmp_path, "shop", force=True)
    assert set(made.kept) == {"README.md", "Makefile"}
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "headrace.toml").exists()
    assert not (tmp_path / ".git").exists(), "whether it is a repository is for its owner to say"
    again = create(tmp_path, "shop", force=True)
    assert again.written == ()


@pytest.mark.parametrize(
    ("folder", "name", "said"),
    [
        ("2024", None, "'2024' makes the name '2024', which is none that dbt takes"),
        ("ünï", None, "which is none that dbt takes"),
        ("x", "Shop", "the name is 'Shop', which is none that dbt takes"),
        ("x", "a-b", "give another with --name"),
        ("x", "a" * 64, "up to 63 lower-case letters"),
        (
            "headrace",
            None,
            "'headrace' makes the name 'headrace', which is taken by a package that dbt loads",
        ),
        ("x", "class", "the name is 'class', which is taken by Python"),
        ("x", "", "the name is '', which is none that dbt takes"),
    ],
)
def test_a_name_that_does_not_do_is_refused(tmp_path: Path, folder: str, name: str | None, said: str) -> None:
    with pytest.raises(Fatal) as refused:
        create(tmp_path / folder, name)
    assert said in str(refused.value)
    assert not (tmp_path / folder).exists()


def test_a_file_and_a_project_around_it_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match="file is a file: name a folder"):
        create(tmp_path / "file", "x")
    (tmp_path / "headrace.toml").touch()
    with pytest.raises(Fatal, match=r"is inside the project .*: add streams to that one"):
        create(tmp_path / "deep" / "shop")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop").touch()
    with pytest.raises(Fatal, match=r"shop/deep.* cannot be (read|written): not a directory"):
        create(tmp_path / "shop" / "deep", "deep")


def test_inside_of_a_repository_the_commit_is_left_to_its_owner(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    made = create(tmp_path / "shop")
    assert made.repository.said == f"in the repository {tmp_path.resolve()}: commit it there"
    assert not (made.root / ".git").exists()


def test_a_repository_that_was_just_made_counts_as_empty(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    made = create(tmp_path, "shop")
    assert not made.repository.committed
    assert "headrace.toml" in git(tmp_path, "status", "--porcelain")


def test_without_a_name_of_a_person_there_is_no_commit_and_git_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PERSON:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    made = create(tmp_path / "shop")
    assert not made.repository.committed
    assert made.repository.said.startswith("a new git repository, without a commit: no email was given")
    assert "headrace.toml" in git(made.root, "status", "--porcelain")


def test_without_git_it_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = create(tmp_path / "shop")
    assert made.repository.said == "there is no git here, so this is no repository yet"
    assert (made.root / "headrace.toml").exists()


@pytest.mark.parametrize(
    ("direct", "said"),
    [
        ({}, ""),
        ({"url": "file:///a%20b/h.whl", "archive_info": {}}, 'headrace = { path = "/a b/h.whl" }'),
        ({"url": "file:///a", "dir_info": {"editable": True}}, 'headrace = { path = "/a", editable = true }'),
        (
            {"url": "https://example.com/h.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            'headrace = { git = "https://example.com/h.git", rev = "abc" }',
        ),
        (
            {"url": "https://example.com/h.whl", "archive_info": {}},
            'headrace = { url = "https://example.com/h.whl" }',
        ),
    ],
)
def test_a_headrace_that_is_of_no_index_is_found_where_it_came_from(
    direct: dict[str, object], said: str
) -> None:
    table = project._uv_source(direct)
    assert said in table
    assert bool(table) == bool(direct)
    assert tomllib.loads(table) is not None


def test_the_command_says_the_next_step(tmp_path: Path) -> None:
    env = {**os.environ, "COLUMNS": "80"}
    done = commands.run_text("init", str(tmp_path / "shop"), env=env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("shop: ")
    assert lines[1] == "a git repository with a first commit"
    assert any(line.strip().startswith("cd ") for line in lines)
    assert any("make test" in line for line in lines)
    again = commands.run_text("init", str(tmp_path / "shop"), env=env)
    assert again.returncode == 1
    assert again.stderr.startswith("headrace: ") and "is not empty" in again.stderr
    assert "--force" in again.stderr


@pytest.mark.parametrize("has_pytest", [False, True])
def test_an_active_environment_without_pytest_is_told_in_a_line(tmp_path: Path, has_pytest: bool) -> None:
    """Whoever installs Headrace with pip has an environment that is active, and no more in it than was asked for."""
    create(tmp_path / "shop")
    tools = tmp_path / "env" / "bin"
    tools.mkdir(parents=True)
    for name, status in (("headrace", 0), ("python", 0 if has_pytest else 1)):
        (tools / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["make", "test"], cwd=tmp_path / "shop", env={**os.environ, "VIRTUAL_ENV": str(tools.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == has_pytest
    assert ("the active environment has no pytest: pip install pytest" in done.stderr) != has_pytest
