"""Prometheus itself: it scrapes ``headrace serve``, evaluates the rules, and answers every panel of the platform."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml  # type: ignore[import-untyped]

from builders import eventually
from dashboards.promql import RULE_LIST
from headrace.config.settings import load_settings
from headrace.dashboards.grafana.boards import boards
from headrace.dashboards.grafana.check import expressions
from headrace.dashboards.grafana.panels import rendered
from headrace.dashboards.prometheus import RULES
from headrace.local.embedded import EmbeddedStack
from headrace.metrics import load

from . import servers

_STARTS = 120.0


@contextmanager
def running(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """A process, for as long as the block."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=env) as started:
        try:
            yield
        finally:
            started.terminate()
            started.wait(60)


class Prometheus:
    """Asks a Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **fields: str) -> dict[str, Any]:
        """The answer, whatever its status."""
        told = urllib3.request("GET", f"{self._url}/{path}", fields=fields, timeout=30, retries=False)
        found: dict[str, Any] = json.loads(told.data)
        return found

    def value(self, expression: str) -> list[dict[str, Any]]:
        """Series of an expression now."""
        found = self.get("query", query=expression)
        assert found["status"] == "success", found
        series: list[dict[str, Any]] = found["data"]["result"]
        return series


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server of an installation on the embedded stack each second."""
    program = servers.fetched(servers.PROMETHEUS) / "usr" / "bin" / "prometheus"
    home = tmp_path_factory.mktemp("prometheus")
    serving, asked = servers.free_ports(2)
    rules = home / "rules.yml"
    rules.write_text(RULES.read_text())
    job = {"job_name": "headrace", "static_configs": [{"targets": [f"127.0.0.1:{serving}"]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [job],
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    server = [sys.executable, "-m", "headrace.cli", "serve", "--port", str(serving)]
    scraper = [
        str(program),
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{asked}",
    ]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as held:
        for name in [one for one in os.environ if one.startswith(("HEADRACE_", "DAGSTER_"))]:
            patch.delenv(name)  # of this folder, which are no settings
        endpoints = held.enter_context(EmbeddedStack(home / "home"))
        env = {
            **os.environ,
            **endpoints,
            "HEADRACE_HOME": str(home / "home"),
            "HEADRACE_TELEMETRY_SECONDS": "1",
        }
        with running(server, home / "serve.log", env), running(scraper, home / "prometheus.log"):
            found = Prometheus(asked)
            eventually(lambda: _up(found), _STARTS, f"a scrape with every part ({home})")
            yield found


def _up(prometheus: Prometheus) -> bool:
    try:
        later = ("headrace_warehouse_rows", "headrace_unpublished_versions", "headrace_clickhouse_parts")
        every = all(prometheus.value(name) for name in later)
        return every and not prometheus.value("headrace_exporter_part_up == 0")
    except (urllib3.exceptions.HTTPError, ValueError):  # it is starting
        return False


def test_what_is_told_is_taken_whole(prometheus: Prometheus) -> None:
    [target] = prometheus.get("targets")["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    [[_, scraped]] = [one["value"] for one in prometheus.value("scrape_samples_scraped")]
    [[_, kept]] = [one["value"] for one in prometheus.value("scrape_samples_post_metric_relabeling")]
    assert int(scraped) == int(kept) > 100
    lags = {one["metric"]["topic"] for one in prometheus.value("kafka_consumergroup_lag")}
    assert lags == {"analytics_events", "metrics"}
    kinds = {one["metric"]["kind"] for one in prometheus.value("headrace_source_waiting_messages")}
    assert kinds == {"kafka", "sqs", "files"}


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = prometheus.get("rules")["data"]["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else []

    found = eventually(evaluated, 60, "an evaluation")
    assert {rule["name"] for rule in found} == {one.get("alert") or one["record"] for one in RULE_LIST}
    assert [rule["lastError"] for rule in found if rule["health"] != "ok"] == []


def test_every_panel_is_answered_and_a_wrong_expression_is_not(prometheus: Prometheus) -> None:
    catalogue = load(load_settings())
    asked = [one for board in boards(catalogue) for one in expressions(rendered(board, catalogue))]
    assert len(asked) > 30
    silent = []
    for title, expression in asked:
        found = prometheus.get("query", query=expression.replace("$__rate_interval", "1m"))
        assert found["status"] == "success", (title, found)
        if not found["data"]["result"]:
            silent.append(title)
    assert prometheus.get("query", query="sum(headrace_lake_rows")["status"] == "error"
    # what an installation that has just begun cannot have
    new = {
        *(
            "Last landed",
            "Failed checks",
            "Acknowledged over HTTP, not in the lake",
            "Models behind",
            "Errors",
        ),
        *("Age of the last build", "Runs", "Oldest queued run", "Daemons", "Jobs that fail"),
        *("Failed checks by name", "Services left alone"),
    }
    assert set(silent) <= new
