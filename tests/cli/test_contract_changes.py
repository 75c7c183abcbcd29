"""``headrace contracts diff`` and ``check``, as a person and a pipeline of CI type them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from commands import run_text
from headrace.models import lineage
from headrace.scaffold.project import create

_PERSON = {
    f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose contract is committed as version 1, and edited."""
    for name, value in {**_PERSON, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return create(tmp_path / "shop").root


def edit(shop: Path, *pairs: tuple[str, str]) -> None:
    path = shop / "contracts" / "orders.py"
    text = path.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


SECOND = ("version=1,", "version=2,")
RETIRED = ("length=(1, 32))", "length=(1, 32), retired=2)")
TIGHTER = ('"IT", "NL"]', '"IT"]')


def headrace(shop: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_"))}
    env = {
        **clean,
        "HEADRACE_PROJECT_DIR": str(shop),
        "HEADRACE_HOME": str(shop / ".headrace"),
        "COLUMNS": "80",
    }
    return run_text("contracts", *arguments, env=env)


@pytest.mark.long
def test_differences_are_a_table_of_80_columns(shop: Path) -> None:
    edit(shop, SECOND, RETIRED, TIGHTER)
    done = headrace(shop, "diff", "orders", "--against", "HEAD")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("orders: version 2, beside version 1 of revision HEAD (")
    assert [line.split()[:2] for line in lines if line.startswith(" country ")] == [["country", "tightened"]]
    assert "  coupon: newer rows have null" in lines
    assert "  3 differences, 1 breaking" in lines


def test_a_breaking_change_ends_ci_with_one_line_for_each_reason(shop: Path) -> None:
    edit(shop, SECOND, RETIRED, TIGHTER)
    done = headrace(shop, "check", "--against", "HEAD")
    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    assert line == (
        "orders: country: tightened, isin=['DE', 'FR', 'IT', 'NL'] -> isin=['DE', 'FR', 'IT'], breaks producers:"
        " declare was={1: Was(isin=['DE', 'FR', 'IT', 'NL'])} at the field"
    )


def test_a_change_that_breaks_nobody_passes(shop: Path) -> None:
    edit(shop, SECOND, RETIRED)
    done = headrace(shop, "check", "--against", "HEAD")
    assert done.returncode == 0
    assert done.stdout.endswith(": 2 differences, none breaks anybody\n")
    done = headrace(shop, "check")
    assert (done.returncode, done.stdout) == (
        0,
        "orders: version 2; there is no table in the lake yet: nothing to compare with\n",
    )


def test_differences_as_json_name_the_models(shop: Path) -> None:
    version = shop / ".headrace" / "dbt" / "versions" / "1"
    version.mkdir(parents=True)
    source, model = "source.shop.raw.orders", "model.shop.stg_orders"
    node = {"unique_id": model, "name": "stg_orders", "resource_type": "model", "checksum": {"checksum": "1"}}
    (version / "manifest.json").write_text(
        json.dumps({"sources": {source: {"name": "orders"}}, "nodes": {model: node}})
    )
    made_of = {"country": [[source, "country"]], "coupon": [[source, "coupon"]]}
    (version / lineage.FILE).write_text(json.dumps({model: {"checksum": "1", "columns": made_of}}))
    edit(shop, SECOND, RETIRED, TIGHTER)
    done = headrace(shop, "diff", "--against", "HEAD", "--json")
    [orders] = json.loads(done.stdout)
    assert (orders["stream"], orders["version"], orders["before"], orders["breaking"]) == (
        "orders",
        2,
        1,
        True,
    )
    found = {one["column"]: (one["kind"], one["breaks"], one["models"]) for one in orders["differences"]}
    assert found == {
        "": ("version", [], []),
        "country": ("tightened", ["producers"], ["stg_orders"]),
        "coupon": ("retired", [], ["stg_orders"]),
    }
    done = headrace(shop, "check", "--against", "HEAD", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [orders])


def test_a_contract_that_does_not_load_fails_the_check_and_is_named(shop: Path) -> None:
    edit(shop, ("class Orders", "klass Orders"))
    done = headrace(shop, "check", "--against", "HEAD")
    assert done.returncode == 1
    assert done.stdout.startswith("orders: orders_pipeline.py does not load: ")
    assert len(done.stdout.splitlines()) == 1


def test_a_revision_that_is_none_is_one_line(shop: Path) -> None:
    done = headrace(shop, "check", "--against", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("headrace: git knows no revision 'nowhere'")
    assert len(done.stderr.splitlines()) == 1
