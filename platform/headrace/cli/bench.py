"""``headrace bench``: what Headrace costs and how fast it is, on this machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from headrace.cli.shared import Json, console, emit

app = typer.Typer(no_args_is_help=True, help="Measure Headrace on this machine.")


@app.command()
def freshness(
    rate: Annotated[float, typer.Option(min=1, help="Events per second.")] = 2_000.0,
    seconds: Annotated[float, typer.Option(min=10, help="How long to send.")] = 400.0,
    as_json: Json = False,
) -> None:
    """How soon an event is visible in the speed layer, through the whole platform; 1 if it does not reconcile."""
    from headrace.bench.freshness import freshness as run
    from headrace.settings import settings

    home = settings().home / "bench"
    shutil.rmtree(home, ignore_errors=True)
    found = run(home, Console(stderr=True) if as_json else console, rate=rate, seconds=seconds)
    mark = "[green]✓[/]" if found.reconciles else "[red]✗[/]"
    lines = [
        f"[bold]visible in the speed layer[/]  p50 {found.p50:.1f} s, p95 {found.p95:.1f} s, p99 {found.p99:.1f} s,"
        f" worst {found.worst:.1f} s",
        f"    {found.sent:,} events at {found.rate:,.0f}/s for {found.seconds:,.0f} s, {found.runs} ingest runs",
        f"{mark} sent {found.sent:,} = visible {found.visible:,} = lake {found.lake_rows:,}"
        f" = warehouse {found.warehouse_rows:,}",
    ]
    emit({**asdict(found), "reconciles": found.reconciles}, as_json, lines)
    raise typer.Exit(0 if found.reconciles else 1)
