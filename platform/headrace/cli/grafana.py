"""Commands for Grafana: export its dashboards, check them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.shared import Json, emit, say
from headrace.core import extras

if TYPE_CHECKING:
    from headrace.config.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Dashboards for Grafana, and rules for Prometheus.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the exported files.")]
Seen = Annotated[
    str, typer.Option("--seen-as", help="DIR/dashboards as Grafana sees it, where that is another path.")
]
Prometheus = Annotated[str, typer.Option(help="Address of Prometheus, for Grafana.")]
ClickHouse = Annotated[str, typer.Option(help="HOST:PORT of ClickHouse for Grafana; default: the settings'.")]
Target = Annotated[str, typer.Option(help="HOST:PORT of 'headrace serve', for Prometheus.")]


@app.command()
def export(
    folder: Folder,
    seen_as: Seen = "",
    prometheus: Prometheus = "http://127.0.0.1:9090",
    clickhouse: ClickHouse = "",
    target: Target = "",
) -> None:
    """Write dashboards, what Grafana provisions itself with, and rules for Prometheus, without any password."""
    wanted = _wanted(folder, seen_as, prometheus, clickhouse, target)
    for name, text in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    from headrace.dashboards.grafana.files import password_variable

    variable = password_variable(_settings())
    say(f"{len(wanted)} files are in {folder}; Grafana needs {variable} in its environment")


@app.command()
def check(
    folder: Folder,
    seen_as: Seen = "",
    prometheus: Prometheus = "http://127.0.0.1:9090",
    clickhouse: ClickHouse = "",
    target: Target = "",
    offline: Annotated[bool, typer.Option("--offline", help="Do not run the panels' SQL.")] = False,
    as_json: Json = False,
) -> None:
    """Check exported files: that they are those of now, their form, and that ClickHouse answers every panel.

    Exit status 1 if anything is wrong.
    """
    wanted = _wanted(folder, seen_as, prometheus, clickhouse, target)
    from headrace.dashboards.grafana.check import differences, problems

    found = list(differences(folder, wanted))
    for path in sorted((folder / "dashboards").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        try:
            found += [f"{path.name}: {why}" for why in problems(text)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.append(f"{path.name} is no dashboard: {error!r}")
            continue
        found += [] if offline else [f"{path.name}: {why}" for why in _run(text)]
    emit({"problems": found}, as_json, found or ["every dashboard is well"])
    raise typer.Exit(1 if found else 0)


def _settings() -> Settings:
    from headrace.config.settings import settings

    extras.require("serve", "'headrace grafana'")
    return settings()


def _wanted(folder: Path, seen_as: str, prometheus: str, clickhouse: str, target: str) -> dict[str, str]:
    config = _settings()
    from headrace.dashboards.grafana.files import Places, files
    from headrace.metrics import load

    seen = seen_as or str((folder / "dashboards").absolute())
    return files(load(config), config, Places(seen, prometheus, clickhouse, target))


def _run(text: str) -> list[str]:
    """Run every statement of a dashboard over the last day; returns what the server refuses."""
    from headrace.core.errors import HeadraceError
    from headrace.core.guard import Guard
    from headrace.dashboards.grafana.check import statements
    from headrace.metrics import expanded
    from headrace.streams.adapters import warehouse

    config, now = _settings(), datetime.now(UTC)
    server = warehouse(config, Guard("warehouse", config.retry_policy.without_retries()))
    found = []
    try:
        for what, sql in statements(text):
            try:
                server.read_only(expanded(sql, "grafana", {"from": now - timedelta(days=1), "to": now}))
            except HeadraceError as error:
                found.append(f"{what}: {error}")
    finally:
        server.close()
    return found
