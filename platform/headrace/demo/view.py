"""Show the demo in a terminal: live progress, and one summary at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.demo.over_http import Landed, OverHttp
    from headrace.demo.progress import Progress, Result
    from headrace.demo.reconcile import Mart

_REASONS = 5  # of each stream, the most frequent


class Reporter:
    """Receiver of the services' messages while the live view is shown."""

    def __init__(self, live: Live, console: Console) -> None:
        self._live, self._console = live, console

    def __call__(self, line: str) -> None:
        """Print a line above the live view."""
        self._console.print(f"[yellow]{line}[/]")

    def finish(self) -> None:
        """Draw the last state and end the live view."""
        self._live.stop()


@contextmanager
def live(progress: Progress, console: Console) -> Iterator[Reporter]:
    """Show ``progress`` until the block ends. Without a terminal, print lines instead."""
    console.print(
        "[bold]Headrace[/]  [dim]Kafka, SQS and HTTP → contracts → Delta Lake → ClickHouse → dbt[/]\n"
    )
    if not console.is_terminal:
        progress.print_line = lambda: console.print(
            f"{progress.seconds:5.0f} s  {_line(progress)}", soft_wrap=True
        )
    shown = Live(
        get_renderable=lambda: _frame(progress), console=console, refresh_per_second=4, transient=False
    )
    with shown:
        yield Reporter(shown, console)


def _frame(progress: Progress) -> RenderableType:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for header in ("stream", "", "produced", "in the lake", "in the warehouse"):
        table.add_column(header, justify="right" if header else "left", min_width=8)
    for one in progress.feeds:
        landed, published = progress.landed.get(one.stream, 0), progress.published.get(one.stream, 0)
        total = one.rows if one.expected else 0
        bar = ProgressBar(total=total or 1, completed=published if total else 0, width=28)
        table.add_row(
            f"[bold]{one.stream}[/]",
            bar,
            f"{one.produced:,} / {one.total:,} messages",
            f"{landed:,} rows",
            f"{published:,} rows",
        )
    runs = Text("  ").join(_runs(progress)) if progress.runs else Text("no runs yet", style="dim")
    spinner = Spinner("dots", Text(f"{progress.stage}  {progress.seconds:.0f} s", style="cyan"))
    return Group(table, Text.assemble(("runs  ", "dim"), runs), spinner)


def _line(progress: Progress) -> str:
    """Describe the state in one line, for logs."""
    streams = [
        f"{one.stream} {one.produced:,} produced, {progress.landed.get(one.stream, 0):,} in the lake,"
        f" {progress.published.get(one.stream, 0):,} in the warehouse"
        for one in progress.feeds
    ]
    return "; ".join([progress.stage, *streams, *(text.plain for text in _runs(progress))])


def _runs(progress: Progress) -> list[Text]:
    marks = {
        "SUCCESS": ("✓", "green"),
        "FAILURE": ("✗", "red"),
        "CANCELED": ("✗", "red"),
        "STARTED": ("▶", "cyan"),
    }
    out = []
    for run in reversed(progress.runs[:8]):
        mark, style = marks.get(run.status, ("…", "dim"))
        out.append(Text(f"{mark} {run.job}", style=style))
    return out


def as_dict(result: Result) -> dict[str, Any]:
    """Return the result as data for JSON."""
    return {
        "passed": result.passed,
        "seconds": round(result.seconds, 1),
        "streams": {
            one.stream: {
                "produced": one.produced,
                "landed": one.landed,
                "rejected": one.rejected,
                **({"http": _http(*one.http)} if one.http else {}),
                "lake_rows": one.audit.good,
                "rejected_rows": one.audit.rejected,
                "warehouse_rows": one.warehouse,
                "doubled_rows": one.audit.doubled,
                "rejects_by_reason": one.audit.reasons,
                "comparisons": [
                    {"what": line.what, "expected": line.expected, "found": line.found, "agrees": line.agrees}
                    for line in one.lines
                ],
            }
            for one in result.streams
        },
        "marts": {mart.name: mart.rows for mart in result.marts},
        "checks": [asdict(check) for check in result.checks],
    }


def _http(sent: OverHttp, there: Landed) -> dict[str, int]:
    return {
        "acknowledged": sent.acknowledged,
        "landed": there.good,
        "rejected": there.rejected,
        "repeated": sent.repeated,
    }


def summary(result: Result, console: Console) -> None:
    """Print the summary: every number with its verdict."""
    console.print()
    for one in result.streams:
        audit = one.audit
        mark = "[green]✓[/]" if one.agrees else "[red]✗[/]"
        console.print(
            f"{mark} [bold]{one.stream}[/]  {one.produced:,} produced = {one.landed:,} landed"
            f" + {one.rejected:,} rejected; rows in lake {audit.good:,} ="
            f" in warehouse {one.warehouse:,}; {audit.doubled:,} doubled",
            soft_wrap=True,
        )
        if one.http:
            over = _http(*one.http)
            mark = "[green]✓[/]" if over["acknowledged"] == over["landed"] + over["rejected"] else "[red]✗[/]"
            console.print(
                f"{mark} [bold]{one.stream} over HTTP[/]  {over['acknowledged']:,} acknowledged ="
                f" {over['landed']:,} landed + {over['rejected']:,} rejected; {over['repeated']:,} repeats left out",
                soft_wrap=True,
            )
        for line in one.lines:
            if not line.agrees:
                console.print(f"    [red]{line.what}: expected {line.expected:,}, found {line.found:,}[/]")
    console.print(_rejects(result))
    for mart in result.marts:
        console.print(_mart(mart))
    console.print(_checks(result))
    compared = sum(len(s.lines) for s in result.streams)
    agreed = sum(line.agrees for s in result.streams for line in s.lines)
    if agreed < compared or not result.streams:
        verdict = "[bold red]Numbers do not reconcile[/]"
    elif result.passed:
        verdict = "[bold green]Every number reconciles[/]"
    else:
        verdict = "[bold red]A check failed, although every number reconciles[/]"
    console.print(f"\n{verdict}: {agreed} of {compared} comparisons agree. {result.seconds:.0f} s.")


def _rejects(result: Result) -> RenderableType:
    table = Table(title="Rejected rows by reason", title_justify="left", box=box.SIMPLE, show_edge=False)
    table.add_column("stream")
    table.add_column("reason", max_width=70, no_wrap=True)
    table.add_column("rows", justify="right")
    for one in result.streams:
        reasons = list(one.audit.reasons.items())
        for n, (reason, count) in enumerate(reasons[:_REASONS]):
            table.add_row(one.stream if n == 0 else "", escape(reason), f"{count:,}")
        rest = sum(count for _, count in reasons[_REASONS:])
        if rest:
            table.add_row("", f"[dim]{len(reasons) - _REASONS} more[/]", f"[dim]{rest:,}[/]")
    return table


def _mart(mart: Mart) -> RenderableType:
    table = Table(
        title=f"{mart.name}  [dim]{mart.rows:,} rows[/]",
        title_justify="left",
        box=box.SIMPLE,
        show_edge=False,
    )
    for column in mart.columns:
        table.add_column(column, no_wrap=True)
    for row in mart.samples:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _checks(result: Result) -> RenderableType:
    ran = [c for c in result.checks if c.status is not None]
    failed = [c for c in ran if c.status != "SUCCEEDED"]
    mark = "[red]✗[/]" if failed or not ran else "[green]✓[/]"
    lines = [f"{mark} [bold]asset checks[/]  {len(ran) - len(failed)} of {len(ran)} passed"]
    lines += [f"    [red]{c.asset}: {c.name}: {c.description or c.status}[/]" for c in failed]
    own = [c for c in ran if c.description and c not in failed]
    lines += [f"    [dim]{c.asset} {c.name}: {c.description}[/]" for c in own]
    return Group(*(Text.from_markup(line) for line in lines))


def show_door(settings: Settings, console: Console) -> None:
    """Print where events go over HTTP and where its first key is; nothing where no collector runs."""
    if not settings.collector_url:
        return
    first = settings.collector_first_key
    own_keys = settings.collector_keys_file.exists() and not first.exists()
    key = "keys: headrace keys list" if own_keys else f"its first key is in {first}"
    console.print(
        f"HTTP        [bold cyan]{settings.collector_url}[/]   [dim]/docs lists the routes; {escape(key)}[/]",
        soft_wrap=True,
    )


def show_address(ui: str, console: Console) -> None:
    """Print the UI's address and how to stop the platform."""
    console.print(f"\nDagster UI  [link={ui}][bold cyan]{ui}[/][/link]   [dim]Ctrl-C stops everything[/]")
