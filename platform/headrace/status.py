"""The health of a stream on one screen."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.markup import escape

from headrace.errors import HeadraceError
from headrace.stream import Stream


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What ``headrace status`` shows of a stream.

    Attributes:
        stream: Its name.
        sources: Messages waiting by source, or what is wrong with it.
        lake_rows: Good rows in the lake.
        rejected_rows: Rejected rows in the lake.
        warehouse_rows: Rows in the raw table; None when the warehouse is away.
        unpublished_versions: Lake versions that are not in the warehouse yet.
        touched_days: Days whose models are older than their rows.
        problems: One line each, for a person.
    """

    stream: str
    sources: dict[str, int | str] = field(default_factory=dict)
    lake_rows: int = 0
    rejected_rows: int = 0
    warehouse_rows: int | None = None
    unpublished_versions: int | None = None
    touched_days: int | None = None
    problems: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing needs a person."""
        return not self.problems

    def lines(self) -> list[str]:
        """The same for a terminal."""
        waiting = ", ".join(
            f"{n}: {w:,} waiting" if isinstance(w, int) else n for n, w in self.sources.items()
        )
        warehouse = "away" if self.warehouse_rows is None else f"{self.warehouse_rows:,} rows"
        behind = f", {self.unpublished_versions} versions behind" if self.unpublished_versions else ""
        models = f", models of {self.touched_days} days to refresh" if self.touched_days else ""
        mark = "[green]✓[/]" if self.healthy else "[red]✗[/]"
        return [
            f"{mark} [bold]{self.stream}[/]  {waiting}",
            f"    lake {self.lake_rows:,} rows, {self.rejected_rows:,} rejected; warehouse {warehouse}{behind}{models}",
            *(f"    [red]{escape(problem)}[/]" for problem in self.problems),
        ]


def inspect(stream: Stream) -> StreamStatus:
    """Look at one stream; a part that does not answer is a problem of the report, not an exception."""
    problems: list[str] = []
    sources: dict[str, int | str] = {}
    for spec in stream.pipeline.sources:
        try:
            backlog = stream.backlog(spec.name)
            sources[spec.name] = backlog.waiting
            problems += backlog.problems
        except HeadraceError as error:
            sources[spec.name] = "away"
            problems.append(str(error))
    lake = {name: sum(table.counts_by_day().values()) for name, table in _tables(stream)}
    try:
        warehouse, behind = sum(stream.warehouse_counts().values()), stream.unpublished()
        touched = len(stream.touched())
        different = stream.parity()
    except HeadraceError as error:
        problems.append(str(error))
        return StreamStatus(stream.name, sources, lake["good"], lake["rejected"], problems=tuple(problems))
    if different:
        problems.append(
            f"{len(different)} days differ between lake and warehouse, the first is {min(different)}"
        )
    return StreamStatus(
        stream.name, sources, lake["good"], lake["rejected"], warehouse, behind, touched, tuple(problems)
    )


def _tables(stream: Stream):  # type: ignore[no-untyped-def]
    return (("good", stream.lake.good), ("rejected", stream.lake.rejected))
