"""What a new user does with an installed Headrace: a project, an unseen file, a stream, a model of one's own, a chart.

Every number is compared with a count by csv, datetime and dict alone.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import AbstractContextManager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from builders import eventually
from installation.clickstream import as_csv, count, rows
from installed import Installation
from staying import staying

PERSON = {
    "GIT_AUTHOR_NAME": "A Person", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A Person", "GIT_COMMITTER_EMAIL": "a@example.com",
}  # fmt: skip
FILE = "data/clicks/2024-03.csv"
ASSETS = "query Assets { assetNodes { assetKey { path } dependencyKeys { path } } }"
STAGING = "select * from {{ source('raw', 'clicks') }}\n"
MART = """
{{ config(tags=['clicks'], partition_by='click_date', order_by=['click_date', 'action']) }}

with clicks as (

    {{ headrace.first_of_each(ref('stg_clicks'), 'click_date', 'record_id') }}

)

select
    click_date,
    action,
    count() as clicks,
    uniqExact(visitor) as visitors,
    coalesce(sum(price), 0) as revenue
from clicks
where {{ headrace.in_rebuilt_days('click_date') }}
group by click_date, action
"""
TESTS = """
version: 2

models:
  - name: clicks_daily
    description: One row per UTC day and action.
    data_tests:
      - headrace.holds:
          arguments: {grain: [click_date, action], day: click_date, conditions: [clicks > 0]}
"""
DAILY = (
    "select click_date, action, clicks, visitors, toString(revenue) as revenue from analytics.clicks_daily"
)


def up(installation: Installation, project: Path) -> AbstractContextManager[str]:
    """``headrace up`` in a project; gives the address of its UI."""
    command = [str(installation.folder / "bin" / "headrace"), "up", "--rate", "0"]
    return staying(command, project, installation.environment(), project.parent / "up.log")


def lineage(ui: str) -> dict[str, set[str]]:
    """Assets of the code location, with those that each depends on."""
    answer = requests.post(f"{ui}/graphql", json={"query": ASSETS}, timeout=120).json()["data"]
    return {
        "/".join(node["assetKey"]["path"]): {"/".join(key["path"]) for key in node["dependencyKeys"]}
        for node in answer["assetNodes"]
    }


def edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert old in text, f"{file} has no {old!r}:\n{text}"
        text = text.replace(old, new)
    file.write_text(text)


@pytest.mark.long
def test_from_an_unseen_file_to_a_mart_of_ones_own(installation: Installation, tmp_path: Path) -> None:
    shop = tmp_path / "my shop"

    def headrace(*command: str, check: bool = True) -> Any:
        done = installation.run("headrace", *command, "--json", cwd=shop, check=check)
        return json.loads(done.stdout)

    installation.run("headrace", "init", str(shop), "--empty", cwd=tmp_path, env=PERSON)
    content = as_csv(rows())
    expected = count(content)
    assert expected.refused > 200 and len(expected.marts) > 20, "the file is as odd as it should be"
    with up(installation, shop) as ui:
        assert not [name for name in lineage(ui) if name.startswith("lake/")]

        # an unseen file becomes a stream
        (shop / FILE).parent.mkdir()
        (shop / FILE).write_bytes(content)
        assert headrace("contracts", "infer", FILE)["stream"] == "clicks"
        edit(shop / "contracts" / "clicks.py", ('zone="UTC"', 'zone="Europe/Berlin"'))
        tried = headrace("contracts", "try", FILE, "--against", "clicks", check=False)
        assert (tried["landed"], tried["rejected"]) == (expected.landed, expected.refused)
        eventually(
            lambda: {"files/clicks", "lake/clicks", "warehouse/clicks"} <= set(lineage(ui)), 180, "Reload"
        )
        installation.run("headrace", "ingest", "clicks", "--until-idle", cwd=shop)
        [status] = headrace("status", "clicks", check=False)["streams"]
        assert (status["lake_rows"], status["rejected_rows"], status["warehouse_rows"]) == (
            expected.landed, expected.refused, expected.landed
        )  # fmt: skip

        # models of one's own build on the macros of Headrace
        for name, text in (
            ("staging/stg_clicks.sql", "{{ config(tags=['clicks']) }}\n\n" + STAGING),
            ("marts/clicks_daily.sql", MART),
            ("marts/clicks_daily.yml", TESTS),
        ):
            file = shop / "dbt" / "models" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        pipeline = shop / "pipelines" / "clicks_pipeline.py"
        pipeline.write_text(re.sub(r'# (models="clicks").*', r"\1,", pipeline.read_text()))
        eventually(lambda: "marts/clicks_daily" in lineage(ui), 180, "the mart among the assets")
        found = lineage(ui)
        assert found["marts/clicks_daily"] == {"staging/stg_clicks", "warehouse/clicks"}
        assert found["staging/stg_clicks"] == {"warehouse/clicks"}
        days = sorted({day for day, _ in expected.marts})
        headrace("backfill", "clicks", "--from", days[0].isoformat(), "--to", days[-1].isoformat())
        marts = {
            (date.fromisoformat(row["click_date"]), row["action"]): (
                int(row["clicks"]), int(row["visitors"]), Decimal(row["revenue"])
            )
            for row in headrace("query", DAILY)
        }  # fmt: skip
        assert marts == expected.marts
        assert [one for one in headrace("doctor") if not one["ok"]] == []
    done = subprocess.run(
        ["make", "test"],
        cwd=shop, env=installation.environment({"VIRTUAL_ENV": str(installation.folder)}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.long
def test_the_example_lands_through_the_whole_platform(installation: Installation, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    installation.run("headrace", "init", str(shop), cwd=tmp_path, env=PERSON)
    done = subprocess.run(
        ["make", "demo"],
        cwd=shop, env=installation.environment({"VIRTUAL_ENV": str(installation.folder)}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "orders  61 produced = 59 landed + 2 rejected; rows in lake 59 = in warehouse 59" in done.stdout
    assert "orders_daily  11 rows" in done.stdout
    assert "Every number reconciles" in done.stdout
