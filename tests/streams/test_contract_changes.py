"""Contracts here beside those of a git revision and beside those that a lake has recorded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from deltalake import DeltaTable

from headrace.config.settings import load_settings as settings
from headrace.contracts.growth.describe import described, text_of
from headrace.core.errors import Fatal
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.delta.recorded import recorded
from headrace.lake.delta.storage import CONTRACT
from headrace.pipelines import discover_for
from headrace.scaffold.project import create
from headrace.streams.contract_changes import Compared, compare

PERSON = {
    "GIT_AUTHOR_NAME": "A Person", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A Person", "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
}  # fmt: skip
EDITED = {
    "another version": ("version=1,", "version=2,"),
    "retired": ('length=(1, 32))', 'length=(1, 32), retired=2)'),
    "a column": ("    class Config:", '    shop: pl.String = field("which shop", since=2)\n\n    class Config:'),
    "no coupon": ('    coupon: pl.String = field("the coupon, if there was one", length=(1, 32))\n', ""),
    "no text": ("class Orders", "klass Orders"),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, committed, in which one stands."""
    for name, value in PERSON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    root = create(tmp_path / "shop").root
    monkeypatch.setenv("HEADRACE_PROJECT_DIR", str(root))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_PIPELINES", raising=False)
    monkeypatch.delenv("HEADRACE_LAKE_URI", raising=False)
    return root


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def edit(root: Path, *names: str) -> None:
    path = root / "contracts" / "orders.py"
    text = path.read_text()
    for name in names:
        before, after = EDITED[name]
        assert before in text, name
        text = text.replace(before, after)
    path.write_text(text)


def orders(found: list[Compared]) -> Compared:
    return next(one for one in found if one.stream == "orders")


def kinds(compared: Compared) -> list[tuple[str, str, bool]]:
    return [(one.kind, one.column, one.breaking) for one in compared.differences]


def against(revision: str) -> Compared:
    return orders(compare(settings(), revision))


@pytest.mark.long
def test_work_in_progress_beside_a_revision(project: Path) -> None:
    same = against("HEAD")
    assert (same.differences, same.breaking, same.version, same.before) == ((), False, 1, 1)
    edit(project, "another version", "retired", "a column")
    grown = against("HEAD")
    assert kinds(grown) == [
        ("version", "", False),
        ("retired", "coupon", False),
        ("added", "shop", False),
    ]
    assert (grown.version, grown.before, grown.breaking) == (2, 1, False)
    assert git(project, "rev-parse", "--short", "HEAD") in grown.beside
    git(project, "commit", "-qam", "two")
    assert against("HEAD").differences == ()
    assert kinds(against("HEAD~1")) == kinds(grown)


def test_a_column_that_is_gone_breaks(project: Path) -> None:
    edit(project, "no coupon")
    found = against("HEAD")
    assert kinds(found) == [("version", "", False), ("removed", "coupon", True)]
    assert found.breaking


def test_a_stream_that_is_new_and_one_that_is_gone(project: Path) -> None:
    pipeline, contract = project / "pipelines" / "orders_pipeline.py", project / "contracts" / "orders.py"
    (project / "contracts" / "visits.py").write_text(
        contract.read_text().replace('name="orders"', 'name="visits"')
    )
    text = (
        pipeline.read_text().replace("contracts.orders", "contracts.visits").replace('"orders"', '"visits"')
    )
    (project / "pipelines" / "visits_pipeline.py").write_text(text)
    pipeline.unlink()
    found = {one.stream: one for one in compare(settings(), "HEAD")}
    assert (found["visits"].new, found["visits"].breaking) == (True, False)
    assert (found["orders"].version, found["orders"].breaking) == (None, True)
    assert [one.stream for one in compare(settings(), "HEAD", "visits")] == ["visits"]


def test_a_revision_that_does_not_load_is_named(project: Path) -> None:
    edit(project, "no text")
    git(project, "commit", "-qam", "broken")
    commit = git(project, "rev-parse", "--short", "HEAD")
    git(project, "revert", "--no-edit", "HEAD")
    found = against("HEAD~1")
    assert found.breaking
    assert commit in found.broken and "orders_pipeline.py" in found.broken and "SyntaxError" in found.broken
    assert not against("HEAD~2").breaking


def test_a_file_that_does_not_load_here_is_named(project: Path) -> None:
    edit(project, "no text")
    [found] = [one for one in compare(settings(), "HEAD") if one.stream == "orders"]
    assert found.breaking
    assert found.broken.startswith("orders_pipeline.py does not load: ")


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD~99"])
def test_a_revision_that_is_none_is_named(project: Path, revision: str) -> None:
    with pytest.raises(Fatal, match=f"git knows no revision '{revision}'"):
        compare(settings(), revision)


def test_no_repository_is_named(project: Path) -> None:
    (project / ".git").rename(project / "git")
    with pytest.raises(Fatal, match="is in no git repository"):
        compare(settings(), "HEAD")


def test_a_project_below_the_repositorys_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = project.parent / "above"
    above.mkdir()
    (project / ".git").rename(project.parent / "unused")
    inside = project.rename(above / "shop")
    monkeypatch.setenv("HEADRACE_PROJECT_DIR", str(inside))
    git(above, "init", "-q")
    git(above, "add", ".")
    git(above, "commit", "-qm", "one")
    edit(inside, "no coupon")
    assert kinds(against("HEAD")) == [("version", "", False), ("removed", "coupon", True)]


def test_an_unknown_stream_is_named(project: Path) -> None:
    with pytest.raises(Fatal, match="there is no stream 'order'; there are orders"):
        compare(settings(), "installation", "order")


def test_beside_a_lake_that_has_no_table(project: Path) -> None:
    found = against("installation")
    assert (found.new, found.breaking) == (True, False)
    assert not Path(settings().lake, "orders").exists()  # looking creates nothing


def lake_table() -> DeltaLakeTable:
    config = settings()
    table = discover_for(config).pipelines["orders"].contract.table
    found = DeltaLakeTable(config.lake, table)
    found.open()
    return found


def test_beside_what_the_lake_has_recorded(project: Path) -> None:
    uri = lake_table().uri
    contract = discover_for(settings()).pipelines["orders"].contract
    DeltaTable(uri).alter.set_table_properties(
        {CONTRACT: text_of(described(contract))}, raise_if_not_exists=False
    )
    assert against("installation").differences == ()
    edit(project, "another version", "retired")
    found = against("installation")
    assert kinds(found) == [("version", "", False), ("retired", "coupon", False)]
    assert found.before == 1


def test_beside_the_columns_of_a_lake_that_has_none_recorded(project: Path) -> None:
    uri = lake_table().uri
    DeltaTable(uri).alter.set_table_properties({CONTRACT: ""}, raise_if_not_exists=False)
    assert (against("installation").differences, against("installation").before) == ((), None)
    edit(project, "no coupon")
    assert kinds(against("installation")) == [("removed", "coupon", True)]


def test_a_record_that_is_damaged_is_named(project: Path) -> None:
    uri = lake_table().uri
    DeltaTable(uri).alter.set_table_properties({CONTRACT: '{"version": 1'}, raise_if_not_exists=False)
    with pytest.raises(Fatal, match=r"the contract recorded with .*/orders is damaged"):
        against("installation")
    found = recorded(settings().lake, "orders")
    assert found is not None and "coupon" in found.schema
