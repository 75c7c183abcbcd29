"""Move micro-batches from Kafka, SQS and files into Delta Lake and ClickHouse, every message exactly once."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli import (
    alerts,
    bench,
    collect,
    contract_changes,
    contracts,
    data,
    dbt,
    grafana,
    init,
    inspect,
    keys,
    lake,
    metabase,
    metrics,
    migrate,
    query,
    rejects,
    run,
    running,
    serve,
)
from headrace.core.errors import HeadraceError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for command in (
    init.init,
    running.demo,
    running.up,
    running.env,
    collect.collect,
    serve.serve,
    run.run,
    data.send,
    data.ingest,
    data.publish,
    data.backfill,
    data.erase,
    query.query,
    inspect.status,
    inspect.doctor,
):
    app.command()(command)
app.add_typer(running.stack_app, name="stack")
contracts.app.command("diff")(contract_changes.diff)
contracts.app.command("check")(contract_changes.check)
contracts.app.command("export")(contract_changes.export)
app.add_typer(keys.app, name="keys")
app.add_typer(rejects.app, name="rejects")
app.add_typer(contracts.app, name="contracts")
app.add_typer(lake.app, name="lake")
app.add_typer(metabase.app, name="metabase")
app.add_typer(migrate.app, name="migrate")
app.add_typer(dbt.app, name="dbt")
app.add_typer(metrics.app, name="metrics")
app.add_typer(alerts.app, name="alerts")
app.add_typer(grafana.app, name="grafana")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line. Print an error of Headrace as one line on standard error, with exit status 1."""
    _quiet_drivers()
    try:
        app()
    except HeadraceError as error:
        Console(stderr=True, highlight=False).print(f"[red]headrace:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _quiet_drivers() -> None:
    """Silence the drivers' logs: drivers log errors that they also raise, and Headrace reports those once."""
    logging.getLogger().addHandler(logging.NullHandler())
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("headrace: %(message)s"))
    logging.getLogger("headrace").addHandler(own)
