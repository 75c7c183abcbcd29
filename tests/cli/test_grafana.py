"""``headrace grafana``: what it writes it finds well, and what somebody changed it names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from commands import run_text


def grafana(*words: str, home: Path, **more: str) -> Any:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return run_text("grafana", *words, env={**kept, "HEADRACE_HOME": str(home), **more}, timeout=120)


def test_what_is_exported_is_well_until_somebody_changes_it(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    done = grafana("export", str(folder), home=tmp_path, HEADRACE_CLICKHOUSE_PASSWORD="my secret")
    assert done.returncode == 0, done.stderr
    assert (folder / "provisioning/datasources/headrace.yaml").is_file()
    assert not [path for path in folder.rglob("*.*") if "my secret" in path.read_text()]
    well = grafana("check", str(folder), "--offline", home=tmp_path)
    assert (well.returncode, well.stdout) == (0, "every dashboard is well\n"), well.stderr
    path = folder / "dashboards/headrace-platform.json"
    data = json.loads(path.read_text())
    data["refresh"] = "1m"
    path.write_text(json.dumps(data))
    (folder / "dashboards/headrace-mine.json").write_text("[]")
    wrong = grafana("check", str(folder), "--offline", "--json", home=tmp_path)
    assert wrong.returncode == 1
    said = "\n".join(json.loads(wrong.stdout)["problems"])
    assert "headrace-platform.json is another one than would be exported now" in said
    assert "headrace-platform.json: it refreshes every 1m" in said
    assert "headrace-mine.json is exported no longer" in said
    assert "headrace-mine.json is no dashboard" in said


def test_a_warehouse_that_is_away_is_named_for_each_panel(tmp_path: Path) -> None:
    grafana("export", str(tmp_path / "out"), home=tmp_path, HEADRACE_CLICKHOUSE_PORT="1")
    found = grafana("check", str(tmp_path / "out"), home=tmp_path, HEADRACE_CLICKHOUSE_PORT="1")
    assert found.returncode == 1
    assert "ClickHouse at 127.0.0.1:1 does not answer" in found.stdout
