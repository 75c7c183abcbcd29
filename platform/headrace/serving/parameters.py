"""Read a question from a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from headrace.metrics import Catalogue, Question, QuestionError, ask
from headrace.metrics.errors import nearest
from headrace.serving.answers import TYPES, Format

SINGLE = ("from", "to", "window", "limit", "compare", "format")
LISTS = ("dimensions", "order")
FILTER = "filter"
KNOWN = (*SINGLE, *LISTS, FILTER)
#: Longest query of a URL, bytes.
_LONGEST = 16_384


@dataclass(frozen=True, slots=True)
class Asked:
    """What a URL asks for.

    Attributes:
        single: Parameters that have one value.
        lists: Parameters that have several.
        filters: Values by dimension; None is a missing value.
        format: Form of the answer; None to go by ``Accept``.
    """

    single: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]]
    filters: Mapping[str, tuple[str | None, ...]]
    format: Format | None

    @property
    def moves(self) -> bool:
        """Whether the range moves with time."""
        return any(not self.single.get(name, "now")[:1].isdigit() for name in ("from", "to"))

    def question(self, catalogue: Catalogue, metric: str, now: datetime | None = None) -> Question:
        """Make the question about a metric.

        Raises:
            QuestionError: Something of it is not possible.
        """
        single = self.single
        return ask(
            catalogue,
            metric,
            start=single.get("from"),
            end=single.get("to"),
            window=single.get("window"),
            dimensions=self.lists.get("dimensions", ()),
            filters=self.filters,
            order=self.lists.get("order", ()),
            limit=single.get("limit"),
            compare=single.get("compare"),
            now=now,
        )

    @property
    def text(self) -> str:
        """What was asked, in one form."""
        return repr((sorted(self.single.items()), sorted(self.lists.items()), sorted(self.filters.items())))


def read(query: bytes, known: Sequence[str] = KNOWN) -> Asked:
    """Read the query of a URL.

    Args:
        query: The query, as it came.
        known: Parameters that are possible.

    Raises:
        QuestionError: A parameter is unknown, or comes twice.
    """
    if len(query) > _LONGEST:
        raise QuestionError("query", f"{len(query)} bytes", f"it is longer than {_LONGEST} bytes")
    single: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    filters: dict[str, tuple[str | None, ...]] = {}
    for name, value in _pairs(query):
        if name not in known:
            raise QuestionError(
                name[:80],
                value[:80],
                "there is no such parameter",
                nearest=nearest(name, known),
                choices=known,
            )
        if name == FILTER:
            dimension, colon, wanted = value.partition(":")
            filters[dimension] = (*filters.get(dimension, ()), wanted if colon else None)
        elif name in LISTS:
            lists[name] = (*lists.get(name, ()), *(one.strip() for one in value.split(",") if one.strip()))
        elif name in single:
            raise QuestionError(name, value[:80], "it is given twice")
        else:
            single[name] = value
    return Asked(single, lists, filters, _format(single.pop("format", None)))


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=2_000)
    except (UnicodeDecodeError, ValueError):
        raise QuestionError("query", query[:80].decode("latin-1"), "it is no query of a URL") from None


def _format(name: str | None) -> Format | None:
    for known in TYPES:
        if name == known:
            return known
    if name is None:
        return None
    raise QuestionError(
        "format", name[:80], "there is no such format", nearest=nearest(name, TYPES), choices=TYPES
    )


def accepted(header: str) -> Format:
    """Return the format that an ``Accept`` header asks for: JSON unless it says another one."""
    for one in header.lower().split(","):
        kind = one.partition(";")[0].strip()
        if kind == "text/csv":
            return "csv"
        if kind in ("application/vnd.apache.arrow.stream", "application/arrow"):
            return "arrow"
        if kind in ("application/json", "*/*"):
            return "json"
    return "json"
