"""Commands ``headrace contracts``: infer, try, reference."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from headrace.cli.shared import Json, console, emit

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.contracts.inference import Inferred, Sample
    from headrace.streams.inference import Written
    from headrace.streams.trial import Trial

#: Most decisions, reasons and fields that are printed.
_TOLD = 10
#: Most characters of a value that are printed.
_SHOWN = 56

app = typer.Typer(
    no_args_is_help=True,
    help="Learn a contract from a sample, try a sample against it, see whom a change would break.",
)

What = Annotated[
    str,
    typer.Argument(
        metavar="FILE|TOPIC", help="A file, here or in the archive, or a topic.", show_default=False
    ),
]


@app.command("infer")
def contracts_infer(
    what: What,
    name: Annotated[
        str | None, typer.Option(help="Name of the stream; default: made of the file's or the topic's.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder for both files; default: the project's, or HEADRACE_PIPELINES, or this one."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Most records to look at.")] = 100_000,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Write a contract and a pipeline that fit a sample: types, nulls, formats, key, time, order.

    Half of the sample are the first rows, the rest is from everywhere in the file; of a topic the newest messages
    are read, and nothing is committed.
    """
    from headrace.config.settings import settings
    from headrace.streams import inference

    config = settings()
    with console.status(f"looking at {what}") if not as_json else nullcontext():
        done = inference.infer(what, config, name=name, to=to, rows=rows, force=force)
        done = replace(done, files=[*done.files, *_dbt_sources(config)])
    if as_json:
        print(json.dumps(_inferred_json(done), default=str))
    else:
        _show(done)


def _dbt_sources(config: Settings) -> list[Path]:
    """Write dbt's sources of a project, as `headrace dbt sources` does; gives the files that are new or changed."""
    if config.project is None:
        return []
    from headrace.models.sources import write
    from headrace.models.versions import dbt_folder
    from headrace.pipelines import discover_for

    found = discover_for(config)
    return [one.path for one in write(dbt_folder(config), found) if one.text is not None]


def _inferred_json(done: Written) -> dict[str, Any]:
    found, sample = done.inferred, done.sample
    roles = found.roles
    return {
        "stream": found.stream,
        "sample": {
            "of": sample.name,
            "format": sample.kind,
            "records": len(sample.records),
            "total": sample.total,
            "total_is_exact": sample.exact,
            "wrong": {reason: asdict(wrong) for reason, wrong in sample.wrong.items()},
            "notes": sample.notes,
        },
        "columns": [
            {
                "name": one.name,
                "from": list(one.path),
                "type": one.dtype,
                "required": one.required,
                "arguments": {n: getattr(v, "text", v) for n, v in one.arguments.items()},
                "missing": one.missing,
                "seen": one.seen,
                "decide": one.decide,
                "hints": one.hints,
                "rejected": [asdict(misfit) for misfit in one.misfits],
            }
            for one in found.columns
        ],
        "left_out": list(found.left_out),
        **{
            role: {"column": value, "why": roles.why.get(role, ""), "decide": roles.decide.get(role, [])}
            for role, value in (("key", roles.key), ("time", roles.time), ("order_by", roles.order_by))
        },
        "repeats": roles.repeats,
        "files": [str(path) for path in done.files],
        "trial": trial_json(done.trial),
        "next": done.next_steps,
    }


def _show(done: Written) -> None:
    """Print what was inferred, what becomes of the sample, and what to type next."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = done.inferred
    table = Table(box=box.SIMPLE, pad_edge=False, expand=False)
    for head in ("column", "from", "type", "in the sample"):
        table.add_column(head, overflow="fold")
    for one in found.columns:
        own = ".".join(one.path)
        origin = "" if own == one.name else own if one.path else "(made)"
        style = "yellow" if one.decide or one.misfits else ""
        table.add_row(Text(one.name, style), _plain(origin), _type(one), _plain(one.seen))
    console.print(f"[bold]{escape(found.stream)}[/], from {escape(found.looked_at)}", soft_wrap=True)
    console.print(table)
    roles = found.roles
    lines = [
        f"[bold]{label:<6}[/]{escape(shown)}: {escape(roles.why[role])}"
        for label, role, shown in (
            ("key", "key", roles.key),
            ("time", "time", roles.time),
            ("order", "order_by", ", ".join(roles.order_by)),
        )
    ]
    lines += [f"[yellow]{escape(text)}[/]" for text in _warnings(found, done.sample)]
    lines += ["", *_trial_lines(done.trial, _tried(done))]
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)
    commands = [f"  {escape(step)}" for step in done.next_steps]
    for line in ["", *(f"wrote {escape(_from_here(path))}" for path in done.files), "next:", *commands]:
        console.print(line, soft_wrap=True)  # a path or a command stays whole, to be copied


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _tried(done: Written) -> str:
    whole = done.trial.records >= done.sample.total
    which = "all of it" if whole else "the newest" if done.sample.unit == "messages" else "the beginning"
    return f"tried on {which}, "


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def _type(one: Any) -> Any:
    from rich.text import Text

    said = one.dtype.removeprefix("pl.").replace("Annotated[pl.", "").replace("pl.", "").removesuffix("]")
    given = one.arguments
    said = {"uuid": "UUID", "object": "JSON object"}.get(given.get("wire", ""), said)
    if "Struct" in one.dtype:
        said = "List of objects"
    elif one.kind in ("decimal", "list"):
        said = one.dtype.removeprefix("Annotated[pl.").replace(", ", "(", 1).replace("pl.", "")[:-1] + ")"
    if "format" in given:
        said += f" {given['format']}"
    if one.required:
        said += ", required"
    return Text(said)


def _warnings(found: Inferred, sample: Sample) -> list[str]:
    """List what a person should know: lines that are no records, values that will be rejected, decisions."""
    lines = [
        f"{wrong.count:,} {sample.unit} are no records: {reason}, {wrong.example}"
        for reason, wrong in sample.wrong.items()
    ]
    lines += sample.notes
    lines += [
        f"{one.name}: {misfit.count:,} of them will be rejected, {misfit.what}, the first is {misfit.example} in"
        f" {sample.unit.removesuffix('s')} {misfit.row:,}"
        for one in found.columns
        for misfit in one.misfits
    ]
    lines += list(found.left_out)
    decide = [f"{one.name}: {text}" for one in found.columns for text in one.decide]
    decide += [f"{role}: {text}" for role, texts in found.roles.decide.items() for text in texts]
    lines += [f"decide: {text}" for text in decide]
    if len(lines) > _TOLD:
        return [*lines[:_TOLD], f"… and {len(lines) - _TOLD:,} more; they are comments in the contract"]
    return lines


@app.command("try")
def contracts_try(
    what: What,
    against: Annotated[
        str, typer.Option(metavar="STREAM", help="Stream whose contract is tried.", show_default=False)
    ],
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most records to try; default: the whole file, of a topic the newest 100,000."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how many records would land and why the others would not, without landing any.

    Exit status 0: all would land; 1: some would not, or there are none.
    """
    from datetime import UTC, datetime

    from headrace.config.settings import settings
    from headrace.streams import samples
    from headrace.streams.adapters import limits_of
    from headrace.streams.stream import streams
    from headrace.streams.trial import try_batches

    config = settings()
    [stream] = streams(config, against).values()
    found = samples.find(what, config)
    with console.status(f"trying {what} against {against}") if not as_json else nullcontext():
        trial = try_batches(
            stream.contract,
            samples.batches(found, stream.pipeline, rows, config),
            limits_of(stream.pipeline, config),
            datetime.now(UTC),
        )
    emit(
        {"stream": against, "of": what, **trial_json(trial)},
        as_json,
        _trial_lines(trial, f"{escape(what)}: "),
    )
    raise typer.Exit(0 if trial.well else 1)


@app.command("reference")
def contracts_reference() -> None:
    """Print the reference of contracts as Markdown: fields, types, checks."""
    from headrace.cli.reference import reference

    print(reference(), end="")


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return a trial with JSON's values."""
    return {**asdict(trial), "days": {day.isoformat(): n for day, n in trial.days.items()}}


def _trial_lines(trial: Trial, of: str) -> list[str]:
    from headrace.contracts.inference.proposal import counted

    if not trial.records:
        return [f"{of}there is no record to try"]
    lines = [
        f"{of}{counted(trial.records, 'records')}: [green]{trial.landed:,} would land[/], "
        + (f"[red]{trial.rejected:,} would be rejected[/]" if trial.rejected else "none would be rejected")
    ]
    if trial.days:
        first, last = min(trial.days), max(trial.days)
        spanned = f"{first} to {last}" if first != last else f"{first}"
        lines.append(f"  of {counted(len(trial.days), 'days')}, {spanned} (UTC)")
    if trial.repeats:
        some = "" if trial.keys_compared else " among the first ones"
        lines.append(f"  [yellow]{trial.repeats:,} with the key of another one{some}[/]")
    for reason in trial.reasons[:_TOLD]:
        what = f"{reason.column}: {reason.check}" if reason.column else reason.check
        lines.append(f"  [red]{reason.records:,} rejected:[/] {escape(what)}")
        lines += [
            f"    [dim]{one.place}:[/] {escape((one.value or one.payload or '(nothing)')[:_SHOWN])}"
            for one in reason.examples
        ]
    if len(trial.reasons) > _TOLD:
        lines.append(f"  … and {len(trial.reasons) - _TOLD:,} more reasons; see --json")
    lines += [
        f"  [yellow]{n:,} with the field {escape(repr(name))}, which the contract does not name[/]"
        for name, n in list(trial.unknown.items())[:_TOLD]
    ]
    return lines
