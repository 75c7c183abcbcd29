"""Commands that run the platform and its backing services: demo, up, stack."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli.shared import Json, console, emit, say
from headrace.core import extras
from headrace.core.errors import Fatal

stack_app = typer.Typer(
    no_args_is_help=True,
    help="Run only the backing services: broker, queue, ClickHouse, cache; and what takes events and serves numbers.",
)
UiPort = Annotated[
    int | None, typer.Option(min=1, max=65_535, help="Port of the UI; default 3000 or a free one.")
]


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave platform and UI running until Ctrl-C.")] = False,
    ui_port: UiPort = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="On the platform that HEADRACE_* name and that runs already; starts none."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the demo on real input (in a project: on data/); exit status 0 only if every number reconciles."""
    extras.require("local", "'headrace demo'")
    from headrace.config.settings import home_folder
    from headrace.demo.run import demo as run
    from headrace.demo.run import demo_of_running
    from headrace.demo.view import as_dict

    to = Console(stderr=True) if as_json else console
    if running and (keep or ui_port):
        raise Fatal("--running starts nothing, so --keep and --ui-port say nothing: leave them away")
    result = demo_of_running(to) if running else run(home_folder() / "demo", to, keep=keep, ui_port=ui_port)
    if as_json:
        print(json.dumps(as_dict(result), default=str))
    raise typer.Exit(0 if result.passed else 1)


def up(
    rate: Annotated[
        float, typer.Option(min=0, help="Simulated events per second, on average; 0 for none.")
    ] = 20.0,
    history: Annotated[
        float, typer.Option(min=0, max=168, help="Hours of past traffic to send at the start.")
    ] = 6.0,
    ui_port: UiPort = None,
) -> None:
    """Run the whole platform with UI and simulated live traffic, in the foreground, until Ctrl-C."""
    extras.require("local", "'headrace up'")
    from headrace.config.settings import home_folder
    from headrace.demo.up import up as run

    run(home_folder(), console, rate=rate, history=timedelta(hours=history), ui_port=ui_port)


@stack_app.command("up")
def stack_up(
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C.")] = False,
    broker_port: Annotated[int | None, typer.Option(help="Exactly this port for the broker.")] = None,
    queue_port: Annotated[int | None, typer.Option(help="Exactly this port for the queue.")] = None,
    clickhouse_port: Annotated[int | None, typer.Option(help="Exactly this port for ClickHouse.")] = None,
    cache_port: Annotated[int | None, typer.Option(help="Exactly this port for the cache.")] = None,
    collector_port: Annotated[int | None, typer.Option(help="Exactly this port for the collector.")] = None,
    serve_port: Annotated[int | None, typer.Option(help="Exactly this port for 'headrace serve'.")] = None,
) -> None:
    """Start the backing services, or report that they run already."""
    extras.require("local", "'headrace stack up'")
    from headrace.config.settings import home_folder
    from headrace.local import stack

    ports = stack.Ports(
        broker=broker_port,
        queue=queue_port,
        clickhouse=clickhouse_port,
        cache=cache_port,
        collector=collector_port,
        serve=serve_port,
    )
    stack.up(home_folder(), foreground, ports=ports, report=say)


@stack_app.command("down")
def stack_down() -> None:
    """Stop the backing services."""
    from headrace.config.settings import home_folder
    from headrace.local import stack

    stack.down(home_folder(), report=say)


@stack_app.command("create")
def stack_create(as_json: Json = False) -> None:
    """Create the topics and queues of your own streams that a running stack lacks."""
    from headrace.config.settings import settings
    from headrace.local import stack_files, topology

    config = settings()
    if not stack_files.env_file(config.home).exists():
        raise Fatal(f"no stack runs in {config.home}; real brokers and queues have tools of their own")
    topics, queues = topology.create(config)
    lines = [f"topic {name}: {partitions} partitions" for name, partitions in topics.items()]
    emit({"topics": topics, "queues": queues}, as_json, [*lines, *(f"queue {name}" for name in queues)])


@stack_app.command("status")
def stack_status(as_json: Json = False) -> None:
    """Show the state of each service; exit status 0 only if all run."""
    from headrace.config.settings import home_folder
    from headrace.local import stack

    rows = stack.status(home_folder())
    lines = [
        f"{row.service:<12} {row.state:<11} {row.address or '':<22} {size(row.memory_bytes)}" for row in rows
    ]
    emit([asdict(row) for row in rows], as_json, lines)
    raise typer.Exit(0 if stack.healthy(rows) else 1)


@stack_app.command("env")
def stack_env(as_json: Json = False) -> None:
    """Print the environment of clients as shell exports: eval "$(headrace stack env)"."""
    import shlex

    from headrace.config.settings import home_folder
    from headrace.local import stack

    found = stack.env(home_folder())
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"export {name}={shlex.quote(value)}")


def size(count: int | None) -> str:
    """Format bytes as MB; empty for None."""
    return "" if count is None else f"{count / 2**20:,.0f} MB"


def env(as_json: Json = False) -> None:
    """Print the environment of this project for dbt, dagster and dg as shell exports: eval "$(headrace env)"."""
    import shlex

    from headrace.config.settings import settings
    from headrace.config.shipped import prepare_dagster
    from headrace.health.dagster_tables import dagster_home

    config = settings()
    home = dagster_home(config)
    prepare_dagster(home)
    found = {**config.exported_variables(), "DAGSTER_HOME": str(home)}
    lines = [escape(f"export {name}={shlex.quote(value)}") for name, value in found.items()]
    emit(found, as_json, lines)
