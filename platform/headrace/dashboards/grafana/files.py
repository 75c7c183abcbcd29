"""The files that Grafana provisions itself with, and rules for Prometheus, by their place below a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from headrace.dashboards.grafana.boards import boards
from headrace.dashboards.grafana.panels import CLICKHOUSE, CLICKHOUSE_TYPE, PROMETHEUS, rendered
from headrace.dashboards.prometheus import RULES

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.metrics import Catalogue

_HEAD = "# Written by 'headrace grafana export'; the next one writes it anew.\n"
#: Variables of Grafana's own environment from which it takes the password: it is in no file.
_OWN, _READER = "HEADRACE_CLICKHOUSE_PASSWORD", "HEADRACE_SERVE_PASSWORD"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are as Grafana and Prometheus see them.

    Attributes:
        dashboards: Folder of the exported dashboards.
        prometheus: Address of Prometheus.
        clickhouse: ``host:port`` of ClickHouse over HTTP; empty for that of the settings.
        target: ``host:port`` of ``headrace serve``, which Prometheus scrapes; empty for that of the settings.
    """

    dashboards: str
    prometheus: str = "http://127.0.0.1:9090"
    clickhouse: str = ""
    target: str = ""


def files(catalogue: Catalogue, settings: Settings, places: Places) -> dict[str, str]:
    """Return the content of each file by its path; the same for the same installation."""
    found = {f"dashboards/{board.uid}.json": rendered(board, catalogue) for board in boards(catalogue)}
    found["provisioning/datasources/headrace.yaml"] = _yaml(_datasources(settings, places))
    found["provisioning/dashboards/headrace.yaml"] = _yaml(_provider(places))
    found["prometheus/headrace-rules.yml"] = RULES.read_text(encoding="utf-8")
    found["prometheus/headrace-scrape.yml"] = _yaml(_scrape(settings, places))
    return found


def password_variable(settings: Settings) -> str:
    """Return the variable with the password of the user that Grafana asks as, the one of ``headrace serve``."""
    return _READER if settings.serve_user else _OWN


def _yaml(value: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=110)
    return _HEAD + text


def _datasources(settings: Settings, places: Places) -> dict[str, Any]:
    host, _, port = places.clickhouse.rpartition(":")
    clickhouse = {
        "name": "Headrace ClickHouse",
        "uid": CLICKHOUSE,
        "type": CLICKHOUSE_TYPE,
        "jsonData": {
            "host": host or settings.clickhouse_host,
            "port": int(port or settings.clickhouse_port),
            "protocol": "http",
            "secure": settings.clickhouse_secure,
            "username": settings.serve_user or settings.clickhouse_user,
            "defaultDatabase": settings.dbt_schema,
        },
        "secureJsonData": {"password": f"${password_variable(settings)}"},
    }
    prometheus = {
        "name": "Headrace Prometheus",
        "uid": PROMETHEUS,
        "type": "prometheus",
        "access": "proxy",
        "url": places.prometheus,
        "jsonData": {"timeInterval": "15s", "httpMethod": "POST"},
    }
    return {"apiVersion": 1, "datasources": [clickhouse, prometheus]}


def _provider(places: Places) -> dict[str, Any]:
    own = {
        "name": "headrace",
        "folder": "Headrace",
        "folderUid": "headrace",
        "type": "file",
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": places.dashboards},
    }
    return {"apiVersion": 1, "providers": [own]}


def _scrape(settings: Settings, places: Places) -> dict[str, Any]:
    target = places.target or f"{settings.serve_host}:{settings.serve_port}"
    job = {"job_name": "headrace", "scrape_interval": "15s", "static_configs": [{"targets": [target]}]}
    return {"scrape_configs": [job], "rule_files": ["headrace-rules.yml"]}
