"""Compare the contracts of the pipelines here with those of an installation's lake, or with those of a git revision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.contracts.growth.describe import described, described_table
from headrace.contracts.growth.differences import EVERYBODY, Difference, differences
from headrace.core.errors import Fatal
from headrace.lake.delta.recorded import recorded
from headrace.pipelines import Pipeline, discover_for
from headrace.streams.revision import contracts_at

if TYPE_CHECKING:
    from headrace.config.settings import Settings

#: What contracts are compared with, if it is no revision.
INSTALLATION = "installation"


@dataclass(frozen=True, slots=True)
class Compared:
    """A stream's contract here, beside another one of the same stream.

    Attributes:
        stream: Name of the stream.
        beside: What it was compared with, for people.
        version: Its version here; None if the stream is gone, or its file is broken.
        before: The other version; None if the stream is new, or none was recorded.
        differences: What differs.
        broken: Why they cannot be compared; empty if they can.
        new: Whether there is nothing to compare with.
    """

    stream: str
    beside: str
    version: int | None
    before: int | None
    differences: tuple[Difference, ...] = ()
    broken: str = ""
    new: bool = False

    @property
    def breaking(self) -> bool:
        """Whether somebody would break, or nobody can tell."""
        return bool(self.broken) or any(one.breaking for one in self.differences)


def compare(settings: Settings, against: str, only: str | None = None) -> list[Compared]:
    """Compare the contracts of all pipelines here, or of one, with others.

    Args:
        settings: Settings of this installation.
        against: ``installation``, for what its lake has recorded, or a git revision.
        only: Name of a stream.

    Raises:
        Fatal: No such stream, no such revision, or a revision that does not load.
        Retriable: The lake does not answer.
    """
    found = discover_for(settings)
    own = {name: one for name, one in found.pipelines.items() if only in (None, name)}
    if against == INSTALLATION:
        compared = [_beside_lake(settings, one) for one in own.values()]
    else:
        compared = list(_beside_revision(settings, own, against, only))
    broken = [
        Compared(file.removesuffix("_pipeline.py"), "", None, None, broken=f"{file} does not load: {why}")
        for file, why in found.broken.items()
        if only is None or only == file.removesuffix("_pipeline.py")
    ]
    known = {one.stream for one in broken}
    compared = [one for one in compared if one.stream not in known]
    if only is not None and not compared and not broken:
        raise Fatal(f"there is no stream {only!r}; there are {', '.join(found.pipelines) or 'none'}")
    return [*compared, *broken]


def _beside_lake(settings: Settings, pipeline: Pipeline) -> Compared:
    contract = pipeline.contract
    now = described(contract)
    table = recorded(settings.lake, contract.table.name, settings.lake_storage_options)
    if table is None:
        return Compared(pipeline.name, "there is no table in the lake yet", contract.version, None, new=True)
    if table.description:
        before = _read(table.description, settings.lake, contract.name)
        return Compared(
            pipeline.name,
            "as recorded with the lake",
            contract.version,
            before["version"],
            tuple(differences(before, now)),
        )
    columns = described_table(contract.name, table.schema, contract.partition)
    return Compared(
        pipeline.name,
        "the columns of the lake, which has no contract recorded",
        contract.version,
        None,
        tuple(differences(columns, now)),
    )


def _read(description: str, lake: str, table: str) -> dict[str, Any]:
    try:
        found = dict(json.loads(description))
        return found if found["version"] and found["fields"] else {}
    except (ValueError, TypeError, KeyError) as error:
        raise Fatal(f"the contract recorded with {lake}/{table} is damaged: {error}") from None


def _beside_revision(
    settings: Settings, own: Mapping[str, Pipeline], against: str, only: str | None
) -> Iterator[Compared]:
    revision = contracts_at(settings, against)
    named = f"revision {against} ({revision.commit})" if against != revision.commit else f"revision {against}"
    beside = f"of {named}"
    unread = {file.removesuffix("_pipeline.py"): (file, why) for file, why in revision.broken.items()}
    for name, pipeline in own.items():
        before = revision.contracts.get(name)
        version = pipeline.contract.version
        if name in unread:
            file, why = unread[name]
            yield Compared(name, beside, version, None, broken=f"{file} {beside} does not load: {why}")
        elif before is None:
            yield Compared(name, f"{named} has no such stream", version, None, new=True)
        else:
            found = tuple(differences(before, described(pipeline.contract)))
            yield Compared(name, beside, version, before["version"], found)
    for name, before in revision.contracts.items():
        if name not in own and only in (None, name):
            said = "keep its pipeline, with its columns retired, until nobody sends or reads it"
            gone = Difference("removed", "", f"stream {name}", "", EVERYBODY, said)
            yield Compared(name, beside, None, before["version"], (gone,))
