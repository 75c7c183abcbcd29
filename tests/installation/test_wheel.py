"""An installed wheel holds all it needs, and writes nothing into itself."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from installed import ROOT, Installation, files_below


def test_the_wheel_holds_what_the_checkout_has_beside_the_package(installation: Installation) -> None:
    with zipfile.ZipFile(installation.wheel) as wheel:
        names = {name.removeprefix("headrace/shipped/") for name in wheel.namelist() if "/shipped/" in name}
    left = {"target", "logs", "dbt_packages", ".user.yml"}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in files_below(ROOT / "dbt_project")
        if left.isdisjoint(path.relative_to(ROOT).parts)
    }
    assert names == there | {"dagster_home/dagster.yaml", "workspace.yaml"}


def test_no_checkout_is_on_the_path(installation: Installation, tmp_path: Path) -> None:
    code = "import headrace, sys; print(headrace.__file__); print(*sys.path, sep='\\n')"
    where, *path = installation.python(code, tmp_path).split("\n")
    assert Path(where).parent == installation.package
    assert not [one for one in path if one.startswith(str(ROOT)) and "site-packages" not in one]


@pytest.mark.long
def test_commands_work_without_a_project_and_say_where_state_goes(
    installation: Installation, tmp_path: Path
) -> None:
    assert "Usage: headrace" in installation.run("headrace", "--help", cwd=tmp_path).stdout
    before = files_below(installation.package)
    done = installation.run("headrace", "doctor", "--json", cwd=tmp_path, check=False)
    said = f"there is no headrace.toml here or above, so state goes to {tmp_path}/.headrace"
    assert done.stderr.count(said) == 1
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["settings"]["said"] == f"home {tmp_path}/.headrace"
    assert found["dbt project"]["ok"], found["dbt project"]
    assert found["pipelines"]["said"] == "events, metrics"
    assert files_below(installation.package) == before, "nothing is written beside the package"
    assert (tmp_path / ".headrace" / "dbt" / "versions").is_dir()


def test_machine_code_is_kept_outside_of_the_package(installation: Installation, tmp_path: Path) -> None:
    code = """
from headrace.sources.kafka import scan
found = {name: one for name, one in vars(scan).items() if hasattr(one, "_cache")}
assert found
print(*{one.stats.cache_path for one in found.values()}, sep="\\n")
"""
    home = tmp_path / "home"
    home.mkdir()
    where = installation.python(code, tmp_path, {"HOME": str(home)}).split()
    assert where and all(one.startswith(str(home / ".cache" / "headrace" / "numba")) for one in where), where
    chosen = installation.python(
        code, tmp_path, {"HOME": str(home), "NUMBA_CACHE_DIR": str(tmp_path / "mine")}
    ).split()
    assert chosen and all(one.startswith(str(tmp_path / "mine")) for one in chosen)
