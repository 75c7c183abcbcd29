"""What a new user does with an installed Headrace: a project, an unseen file, a stream, a model of one's own, a chart.

Every number is compared with a count by csv, datetime and dict alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from builders import eventually
from installation.clickstream import as_csv, count, rows
from installed import Installation

pytestmark = pytest.mark.timeout(600)

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

    {{ headrace.first_of_each(ref('stg_clicks'), 'click_date', 'click_id') }}

)

select
    click_date,
    action,
    count() as clicks,
    uniqExact(visitor) as visitors,
    sum(price) as revenue
from clicks
where {{ headrace.in_rebuilt_days('click_date') }}
group by click_date, action
"""


@contextmanager
def up(installation: Installation, project: Path) -> Iterator[str]:
    """``headrace up`` in a project; gives the address of its UI."""
    output = project.parent / "up.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [str(installation.folder / "bin" / "headrace"), "up", "--rate", "0"],
            cwd=project, env=installation.environment(), stdout=log, stderr=log,
        )  # fmt: skip

    def address() -> str | None:
        assert process.poll() is None, output.read_text()
        said = re.search(r"Dagster UI\s+(http://\S+)", output.read_text())
        return said[1] if said else None

    try:
        yield eventually(address, 180, "the UI's address")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()


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


def test_from_an_unseen_file_to_a_mart_of_ones_own(installation: Installation, tmp_path: Path) -> None:
    shop = tmp_path / "my shop"

    def headrace(*command: str, check: bool = True) -> Any:
        done = installation.run("headrace", *command, "--json", cwd=shop, check=check)
        return json.loads(done.stdout)

    installation.run("headrace", "init", str(shop), "--empty", cwd=tmp_path, more=PERSON)
    content = as_csv(rows())
    expected = count(content)
    assert expected.refused > 200 and len(expected.marts) > 20, "the file is as odd as it should be"
    with up(installation, shop) as ui:
        assert not [name for name in lineage(ui) if name.startswith("lake/")]
        (shop / FILE).parent.mkdir()
        (shop / FILE).write_bytes(content)

        inferred = headrace("contracts", "infer", FILE)
        assert inferred["stream"] == "clicks"
        print(json.dumps(inferred["columns"], indent=1), inferred["key"], inferred["time"])
        print((shop / "contracts" / "clicks.py").read_text())
        print((shop / "pipelines" / "clicks_pipeline.py").read_text())
