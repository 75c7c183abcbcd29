"""Commands ``headrace contracts`` on contracts that change: diff, check, export."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli.shared import Json, console, emit, say
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.contracts.growth.differences import Difference
    from headrace.models.readers import Readers
    from headrace.streams.contract_changes import Compared

Name = Annotated[
    str | None, typer.Argument(metavar="STREAM", help="Only this stream; default: all.", show_default=False)
]
Against = Annotated[
    str,
    typer.Option(metavar="installation|REVISION", help="What the lake has recorded, or a git revision."),
]
#: Most models that are named beside a column.
_NAMED = 4


def diff(stream: Name = None, against: Against = "installation", as_json: Json = False) -> None:
    """Show how the contracts here differ from those of an installation, or of a git revision.

    Each difference says who would break (producers, lake readers, marts) and what to do instead. Exit status 0.
    """
    compared, readers = _compared(stream, against, quiet=as_json)
    if as_json:
        emit(_json(compared, readers), as_json, [])
        return
    for one in compared:
        _show(one, readers, console)


def check(stream: Name = None, against: Against = "installation", as_json: Json = False) -> None:
    """Refuse contracts that would break producers, lake readers or marts: one line for each reason.

    Exit status 0: nobody would break; 1: somebody would, or a contract does not load.
    """
    compared, readers = _compared(stream, against, quiet=True)
    breaking = any(one.breaking for one in compared)
    if as_json:
        emit(_json(compared, readers), as_json, [])
        raise typer.Exit(1 if breaking else 0)
    for one in compared:
        if one.broken:
            say(f"{one.stream}: {one.broken}")
        for difference in one.differences:
            if difference.breaking:
                say(f"{one.stream}: {difference}{_read_by(_models(readers, one, difference))}")
        if not one.breaking:
            say(f"{one.stream}: {_heading(one)}: {_counted(one)}")
    raise typer.Exit(1 if breaking else 0)


def _compared(stream: str | None, against: str, *, quiet: bool) -> tuple[list[Compared], Readers | None]:
    from headrace.config.settings import settings
    from headrace.models.readers import readers
    from headrace.streams.contract_changes import compare

    config = settings()
    with nullcontext() if quiet else console.status(f"comparing contracts with {escape(against)}"):
        return compare(config, against, stream), readers(config)


def _models(readers: Readers | None, compared: Compared, difference: Difference) -> list[str]:
    """Name the models that read a column, by the name that it had."""
    if readers is None or not difference.column:
        return []
    old = difference.before if difference.kind == "renamed" else difference.column
    return readers.of(compared.stream, old)


def _read_by(models: list[str]) -> str:
    if not models:
        return ""
    more = f" and {len(models) - _NAMED} more" if len(models) > _NAMED else ""
    return f"; read by {', '.join(models[:_NAMED])}{more}"


def _json(compared: list[Compared], readers: Readers | None) -> list[dict[str, Any]]:
    from headrace.contracts.growth.differences import WHO

    return [
        {
            "stream": one.stream,
            "beside": one.beside,
            "version": one.version,
            "before": one.before,
            "broken": one.broken,
            "breaking": one.breaking,
            "differences": [
                {
                    "kind": each.kind,
                    "column": each.column,
                    "before": each.before,
                    "after": each.after,
                    "breaks": [who for who in WHO if who in each.breaks],
                    "breaking": each.breaking,
                    "said": each.said,
                    "models": _models(readers, one, each),
                }
                for each in one.differences
            ],
        }
        for one in compared
    ]


def _heading(one: Compared) -> str:
    if one.version is None:
        return f"gone; it was version {one.before} {one.beside}" if one.before is not None else "not readable"
    if one.new:
        return f"version {one.version}; {one.beside}"
    before = f"version {one.before} " if one.before is not None else ""
    return f"version {one.version}, beside {before}{one.beside}"


def _counted(one: Compared) -> str:
    breaking = sum(each.breaking for each in one.differences)
    if not one.differences:
        return "nothing to compare with" if one.new else "nothing differs"
    some = f"{len(one.differences)} difference{'s' * (len(one.differences) != 1)}"
    return f"{some}, {breaking} breaking" if breaking else f"{some}, none breaks anybody"


def _show(one: Compared, readers: Readers | None, to: Console) -> None:
    """Print a stream's differences: a table that fits 80 columns, and below it what to do or to know."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from headrace.contracts.growth.differences import WHO

    to.print(Text.assemble((one.stream, "bold"), f": {_heading(one)}"), soft_wrap=True)
    if one.broken:
        to.print(Text(f"  {one.broken}", "red"), soft_wrap=True)
        return
    if not one.differences:
        to.print(f"  {_counted(one)}")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for head, most in (("column", 18), ("change", 10), ("before", 16), ("after", 16), ("breaks", 14)):
        table.add_column(head, overflow="fold", max_width=most)
    for each in one.differences:
        style = "red" if each.breaking else ""
        whom = ", ".join(who for who in WHO if who in each.breaks)
        cells = (each.column, each.kind, each.before, each.after)
        table.add_row(*map(Text, cells), Text(whom or "nobody", style))
    to.print(table)
    for each in one.differences:
        line = Text("  ").append(f"{each.column or 'version'}: ", "bold")
        line.append(each.said, "red" if each.breaking else "").append(_read_by(_models(readers, one, each)))
        to.print(line)
    to.print(f"  {_counted(one)}")


def export(
    stream: Annotated[str, typer.Argument(metavar="STREAM", show_default=False)],
    form: Annotated[
        Literal["json-schema", "avro", "markdown", "typescript", "pydantic"],
        typer.Option("--format", help="Language of those who produce."),
    ] = "json-schema",
    version: Annotated[
        int | None, typer.Option(help="As of this version of the contract; default: the newest.")
    ] = None,
) -> None:
    """Print what a producer sends, as JSON Schema, Avro, Markdown, TypeScript or Pydantic models."""
    from headrace.config.settings import settings
    from headrace.contracts.export import exported
    from headrace.streams.stream import streams

    [found] = streams(settings(), stream).values()
    contract = found.contract
    if version is not None and version not in contract.accepted:
        first, last = contract.oldest, contract.version
        raise Fatal(f"contract {stream!r} accepts versions {first} to {last}, not {version}")
    print(exported(contract.at(version or contract.version), form), end="")
