"""``headrace contracts``: from a file that nobody has seen to rows in the warehouse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commands import run_text
from conftest import Stack
from headrace.local.broker import create_topics
from headrace.producers.kafka import KafkaProducer


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    """Clicks as a shop exports them: no id, times without a zone, names for people, two rows that are wrong."""
    lines = ["ts;Session ID;page;price;Country"]
    for n in range(400):
        at, country = f"2026-03-{1 + n // 100:02} 10:{n % 60:02}:{n % 7:02}", "DE" if n % 3 else "N/A"
        lines.append(f"{at};s{n % 40};/p/{n % 5};{n}.{n % 90 + 10};{country}")
    lines += [lines[-1], "2026-03-05 10:00:00;s1;/p/1;free;DE", "yesterday;s1;/p/1;1.50;DE"]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_"))}
    return {**clean, "HEADRACE_HOME": str(tmp_path / "home"), **more}


def headrace(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run_text("contracts", *arguments, env=env)


def answer(*arguments: str, env: dict[str, str], status: int = 0) -> Any:
    done = run_text(*arguments, "--json", env=env)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_an_unseen_file_lands_as_it_was_tried(stack: Stack, clicks: Path, tmp_path: Path) -> None:
    pipelines = tmp_path / "mine"
    pipelines.mkdir()
    env = {
        **environment(tmp_path),
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_ARCHIVE": str(tmp_path / "archive"),
        "HEADRACE_ARCHIVE_QUIET_SECONDS": "0",
        "HEADRACE_PIPELINES": str(pipelines),
        "HEADRACE_RAW_DATABASE": "raw_inferred",
    }
    inferred = answer("contracts", "infer", str(clicks), env=env)
    assert [Path(path).name for path in inferred["files"]] == ["clicks_contract.py", "clicks_pipeline.py"]
    assert (inferred["stream"], inferred["time"]["column"], inferred["key"]["column"]) == (
        "clicks",
        "ts",
        "record_id",
    )
    tried = answer("contracts", "try", str(clicks), "--against", "clicks", env=env, status=1)
    assert (tried["records"], tried["landed"], tried["rejected"], tried["repeats"]) == (403, 401, 2, 1)
    assert {one["column"]: one["records"] for one in tried["reasons"]} == {"price": 1, "ts": 1}
    assert tried == {**inferred["trial"], "stream": "clicks", "of": str(clicks)}
    folder = tmp_path / "archive" / "clicks"
    folder.mkdir(parents=True)
    shutil.copy(clicks, folder)
    landed = answer("ingest", "clicks", "--until-idle", env=env)["files/clicks"]
    assert (landed["messages"], landed["landed"], landed["rejected"]) == (403, 401, 2)
    sql = (
        "SELECT count() AS n, uniqExact(record_id) AS keys, uniqExact(click_date) AS days,"
        " countIf(country IS NULL) AS no, sum(price) AS paid FROM raw_inferred.clicks"
    )
    [row] = answer("query", sql, env=env)
    paid = sum(n + (n % 90 + 10) / 100 for n in [*range(400), 399])
    assert {**row, "paid": pytest.approx(float(row["paid"]))} == {
        "n": 401, "keys": 400, "days": len(tried["days"]), "no": 135, "paid": pytest.approx(paid)
    }  # fmt: skip


def test_an_unseen_topic_lands_as_it_was_tried(stack: Stack, tmp_path: Path) -> None:
    env = {
        **environment(tmp_path),
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_PIPELINES": str(tmp_path),
        "HEADRACE_RAW_DATABASE": "raw_inferred_topic",
    }
    servers = stack.settings.kafka_servers
    create_topics(servers, {"shop.visits": 2})
    producer = KafkaProducer(servers, "shop.visits")
    visit = {"page": {"url": "/a", "tags": ["x"]}, "when": 1_772_359_200_123}
    sent = [{"visitId": f"v{n}", **visit, "score": n / 4 if n % 50 else "high"} for n in range(200)]
    producer.send([json.dumps(one).encode() for one in sent], [str(n).encode() for n in range(200)])
    producer.close()
    inferred = answer("contracts", "infer", "shop.visits", "--name", "visits", env=env)
    assert inferred["sample"]["of"] == "topic shop.visits"
    assert (inferred["key"]["column"], inferred["time"]["column"]) == ("visit_id", "when")
    assert 'Kafka("shop.visits")' in (tmp_path / "visits_pipeline.py").read_text()
    tried = answer("contracts", "try", "shop.visits", "--against", "visits", env=env, status=1)
    assert (tried["landed"], tried["rejected"]) == (196, 4)
    [reason] = tried["reasons"]
    assert (reason["column"], reason["records"], reason["examples"][0]["value"]) == ("score", 4, '"high"')
    landed = answer("ingest", "visits", "--until-idle", env=env)["kafka/shop.visits"]
    assert (landed["messages"], landed["landed"], landed["rejected"]) == (200, 196, 4)
    [row] = answer(
        "query",
        "SELECT uniqExact(visit_id) AS n, any(page_tags) AS tags FROM raw_inferred_topic.visits",
        env=env,
    )
    assert row == {"n": 196, "tags": ["x"]}


def test_the_report_names_what_to_decide_and_what_to_type_next(clicks: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, COLUMNS="80")
    done = headrace("infer", str(clicks), "--to", str(tmp_path), env=env)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "all 403 rows of clicks.csv" in said
    assert "decide: ts: the times say no zone" in said
    assert f"headrace contracts try {clicks} --against clicks" in said
    assert "403 records: 401 would land, 2 would be rejected" in said
    contract = (tmp_path / "clicks_contract.py").read_text()
    assert "# Decide: the times say no zone" in contract
    assert '# Will be rejected: 1 value of the sample, no times, the first is "yesterday".' in contract


def test_nothing_is_overwritten_without_being_told_so(clicks: Path, tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "clicks_pipeline.py").write_text("mine")
    done = headrace("infer", str(clicks), "--to", str(tmp_path), env=env)
    assert (done.returncode, (tmp_path / "clicks_pipeline.py").read_text()) == (1, "mine")
    assert (
        "clicks_pipeline.py exists; replace it with --force, or give another name with --name" in done.stderr
    )
    assert not (tmp_path / "clicks_contract.py").exists()
    done = headrace("infer", str(clicks), "--to", str(tmp_path), "--force", env=env)
    assert done.returncode == 0, done.stderr
    done = headrace("infer", str(clicks), "--to", str(tmp_path), "--name", "Visits", env=env)
    assert (done.returncode, (tmp_path / "Visits_pipeline.py").exists()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--name", "events"],
            "stream 'events' has a table 'events' already (events_pipeline.py); give another name",
        ),
        (["--name", "no-name"], "'no-name' is no name of a stream"),
        (["--name", "class"], "'class' is no name of a stream"),
        (["--name", "x" * 55], "is no name of a stream: up to 54 letters"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    clicks: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = headrace("infer", str(clicks), "--to", str(tmp_path), *arguments, env=environment(tmp_path))
    assert done.returncode == 1
    assert said in done.stderr
    assert list(tmp_path.glob("*.py")) == []


def test_a_project_gets_its_files_where_they_belong(clicks: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    (project / "pipelines").mkdir(parents=True)
    (project / "contracts").mkdir()
    (project / "headrace.toml").write_text('[settings]\narchive = "data"\n')
    (project / "data" / "visits").mkdir(parents=True)
    shutil.copy(clicks, project / "data" / "visits" / "part-1.csv")
    env = environment(tmp_path, HEADRACE_PROJECT_DIR=str(project))
    file = str(project / "data" / "visits" / "part-1.csv")
    inferred = answer("contracts", "infer", file, env=env)
    assert inferred["stream"] == "visits", "named for the folder of the archive"
    assert (project / "contracts" / "visits.py").is_file()
    pipeline = (project / "pipelines" / "visits_pipeline.py").read_text()
    assert "from contracts.visits import VISITS" in pipeline
    assert 'Files("visits")' in pipeline
    assert answer("contracts", "try", file, "--against", "visits", env=env, status=1)["landed"] == 401


def test_a_stream_that_does_not_exist_is_named(clicks: Path, tmp_path: Path) -> None:
    done = headrace("try", str(clicks), "--against", "clickz", env=environment(tmp_path))
    assert done.returncode == 1
    assert "there is no stream 'clickz'; there are events, metrics" in done.stderr
