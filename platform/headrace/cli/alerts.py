"""Commands ``headrace alerts``: list open alerts, test the channels, dismiss an alert."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from headrace.cli.shared import Json, emit

app = typer.Typer(no_args_is_help=True, help="List and dismiss alerts, and test their channels.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the open alerts; exit status 0 whether or not there are any."""
    from headrace.alerts import notifier
    from headrace.config.settings import settings

    problems = list(notifier(settings()).state().open.values())
    marks = {"error": "[red]✗[/]", "warning": "[yellow]•[/]"}
    lines = []
    for one in problems:
        lines.append(
            f"{marks[one.severity]} [bold]{escape(one.title)}[/]  since {one.began:%Y-%m-%d %H:%M} UTC, "
            f"{', '.join(one.owners)}"
        )
        lines += [f"    {escape(line)}" for line in (*one.reason.splitlines(), one.link, f"key: {one.key}")]
    emit([asdict(one) for one in problems], as_json, lines or ["no alert is open"])


@app.command()
def test(as_json: Json = False) -> None:
    """Send a message to every channel; exit status 1 if one does not accept it."""
    from headrace.alerts import Notification, Problem, addresses, verify
    from headrace.config.settings import settings
    from headrace.core.errors import Fatal

    config = settings()
    verify(config)
    channels = addresses(config)
    if not channels:
        raise Fatal("HEADRACE_ALERTS names no channel; see 'Alerts' in docs/operations.md")
    now = datetime.now(UTC)
    trial = Problem(
        key="test",
        what="run",
        title="a test",
        reason="nothing is wrong: somebody tries the channels",
        severity="warning",
        owners=("whoever reads this",),
        link=config.ui_url,
        began=now,
    )
    said = {one.label: one.send([Notification("new", trial, now)]) for one in channels}
    lines = [
        f"[red]✗[/] {label}: {escape(why)}" if why else f"[green]✓[/] {label}" for label, why in said.items()
    ]
    emit(said, as_json, lines)
    raise typer.Exit(1 if any(said.values()) else 0)


@app.command()
def dismiss(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key as shown by 'headrace alerts list'.")],
) -> None:
    """Forget an alert without telling anybody; it returns if its cause is found again."""
    from headrace.alerts import notifier
    from headrace.config.settings import settings

    notifier(settings()).dismiss(key)
