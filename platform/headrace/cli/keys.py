"""Commands for keys: to send events, and to read numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.markup import escape

from headrace.cli.shared import Json, emit

app = typer.Typer(
    no_args_is_help=True, help="Make and end the keys with which one sends events, or reads numbers."
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")]


def _keys() -> Any:
    from headrace.collector.keys import Keys
    from headrace.config.settings import settings

    return Keys(settings().collector_keys_file)


def _strange(streams: Sequence[str]) -> str:
    """Say which of the streams of a key there are not; they may be added later."""
    from headrace.config.settings import settings
    from headrace.pipelines.discovery import discover_for

    known = sorted(discover_for(settings()).pipelines) if streams else []
    unknown = [name for name in streams if name not in known]
    return f"there is no stream {unknown[0]!r} yet; there are {', '.join(known)}" if unknown else ""


@app.command("create")
def create(
    name: Name,
    stream: Annotated[
        list[str] | None, typer.Option(help="Only this stream; may be repeated. Default: all.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Pages of this origin may use it, e.g. https://shop.example; may be repeated."),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Events or questions per second, on average; 0: no limit.")
    ] = 0.0,
    read: Annotated[
        bool, typer.Option("--read", help="For reading numbers, not for sending events.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only its digest is kept."""
    secret = _keys().create(
        name, streams=stream or (), origins=origin or (), rate=rate, rights=("read",) if read else ("write",)
    )
    if strange := _strange(stream or ()):
        typer.echo(f"headrace: {strange}", err=True)
    emit({"name": name, "key": secret}, as_json, [escape(secret)])


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the keys, also those that were revoked."""
    found = _keys().all()
    value = [
        {
            "name": key.name,
            "begins": [digest.begins for digest in key.digests],
            "rights": sorted(key.rights),
            "streams": sorted(key.streams),
            "origins": sorted(key.origins),
            "rate": key.rate,
            "created": key.created.isoformat(),
            "revoked": key.revoked and key.revoked.isoformat(),
        }
        for key in found
    ]
    lines = [
        f"{key.name:<20} {key.digests[0].begins}…  {_reach(key)}"
        + (f"  from {', '.join(sorted(key.origins))}" if key.origins else "")
        + (f"  {key.rate:g} events/s" if key.rate else "")
        + (f"  revoked {key.revoked:%Y-%m-%d %H:%M} UTC" if key.revoked else "")
        for key in found
    ]
    emit(
        value,
        as_json,
        [escape(line) for line in lines] or ["there are no keys yet; 'headrace keys create NAME'"],
    )


def _reach(key: Any) -> str:
    return "reads" if key.may_read else ", ".join(sorted(key.streams)) or "all streams"


@app.command("revoke")
def revoke(name: Name, as_json: Json = False) -> None:
    """End a key at once; a running collector notices within a second."""
    _keys().revoke(name)
    emit({"revoked": name}, as_json, [f"key {escape(name)} is revoked"])


@app.command("rotate")
def rotate(
    name: Name,
    hours: Annotated[
        float, typer.Option(min=0, help="For how many hours the key of before works on.")
    ] = 24.0,
    as_json: Json = False,
) -> None:
    """Give a key another secret and print it; ids of events stay unique across the two."""
    secret = _keys().rotate(name, timedelta(hours=hours))
    emit({"name": name, "key": secret}, as_json, [escape(secret)])
