"""Define what a family of metrics declares: models, dimensions and metrics. Plain values; ``loading`` checks them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

Kind = Literal["category", "time", "number", "boolean"]
Format = Literal["integer", "decimal", "percent", "seconds", "milliseconds", "bytes", "time"]
Show = Literal["line", "bar", "table", "heatmap", "funnel", "number"]
#: Where a model lies: ``marts``, ``raw``, or a schema beside the marts such as ``speed``.
Place = Literal["marts", "speed", "intermediate", "staging", "raw"]
#: What a metric may add up over beside dimensions.
WINDOW = "window"

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_STRINGS = re.compile(r"'(?:[^'\\]|\\.|'')*'")
_WORDS = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\b(?!\s*\()(?!\s*->)")
_LAMBDAS = re.compile(r"([A-Za-z_]\w*)\s*->")
_KEYWORDS = frozenset(
    {
        *(
            "and",
            "or",
            "not",
            "in",
            "is",
            "null",
            "true",
            "false",
            "case",
            "when",
            "then",
            "else",
            "end",
            "as",
        ),
        *("between", "like", "ilike", "distinct", "div", "mod", "interval"),
    }
)


def without_texts(sql: str) -> str:
    """Return an SQL expression whose texts are empty."""
    return _STRINGS.sub("''", sql)


def columns_of(sql: str) -> frozenset[str]:
    """Return the names of columns in an SQL expression: words that are no function, keyword, text or argument."""
    plain = without_texts(sql)
    arguments = set(_LAMBDAS.findall(plain))
    return frozenset(w for w in _WORDS.findall(plain) if w.lower() not in _KEYWORDS and w not in arguments)


def qualified(sql: str, alias: str) -> str:
    """Return an SQL expression whose columns are those of ``alias``, whatever has their names beside it."""
    columns = columns_of(sql)
    texts = _STRINGS.findall(sql)
    parts = _STRINGS.split(sql)
    found = [_WORDS.sub(lambda w: f"{alias}.{w[1]}" if w[1] in columns else w[1], part) for part in parts]
    return "".join(part + text for part, text in zip(found, [*texts, ""], strict=True))


@dataclass(frozen=True, slots=True)
class Dimension:
    """What a metric can be broken down and filtered by.

    Attributes:
        name: As questions and answers name it.
        kind: Kind of its values; filters take values of that kind.
        column: Column of the models; the name, unless another is given.
        sql: Expression instead of a column, with ``{time}`` for the model's time; empty for a column.
        within: Greatest width of a model's windows that it can be told from, s; 0 for any.
        determines: Other dimensions whose value follows from its own, as a step's number from its name.
        label, description: For people.
    """

    name: str
    kind: Kind
    label: str
    description: str = ""
    column: str = ""
    sql: str = ""
    within: int = 0
    determines: tuple[str, ...] = ()

    def expression(self, alias: str, time: str) -> str:
        """Return it as SQL over the rows ``alias`` of a model with this time column."""
        return qualified(self.sql.replace("{time}", time), alias) if self.sql else f"{alias}.{self.column}"


@dataclass(frozen=True, slots=True)
class Model:
    """A dbt model, view or raw table from which metrics are counted.

    Attributes:
        name: The model.
        place: Schema in which it lies.
        time: Column of the time, or of the start of the window.
        day: Column of the UTC day, by which it is partitioned.
        widths: Widths of its windows, s; empty where a row has a time of its own.
        width_column: Column of the width, where there are several; empty otherwise.
        dimensions: Names of the dimensions that it has.
        grain: Names of the dimensions of which, with the window, a row is one.
        live: Whether it holds what was published a moment ago; others hold what the last build has read.
        final: Whether rows replace each other until they are merged.
        states: Columns that are made of its rows by an aggregate: states that other models hold as they are.
        where: Condition on the rows that count; empty for all.
    """

    name: str
    time: str
    day: str
    place: Place = "marts"
    widths: tuple[int, ...] = ()
    width_column: str = ""
    dimensions: tuple[str, ...] = ()
    grain: tuple[str, ...] = ()
    live: bool = False
    final: bool = False
    states: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class Metric:
    """A number, defined once.

    Attributes:
        name: As questions name it; unique among all families.
        family, stream: Family and stream that it belongs to.
        label, description: For people.
        measure: An SQL aggregate over columns of its models.
        models: Names of the models that can answer it.
        dimensions: Names of the dimensions that it has.
        where: Condition on the rows that count; empty for all.
        adds_up_over: Over what values of the models' rows may be aggregated: ``window`` and dimensions; None for
            everything. What is not in it must be in the question, each value apart.
        unit: Unit, such as ``events``; empty for none.
        format: How a value is written.
        show: How it is shown unless someone asks otherwise.
        empty: Value where there are no rows; None for none.
        owner: ``team:NAME`` or an e-mail address.
    """

    name: str
    family: str
    stream: str
    label: str
    description: str
    measure: str
    models: tuple[str, ...]
    dimensions: tuple[str, ...]
    unit: str
    format: Format
    show: Show
    owner: str
    where: str = ""
    adds_up_over: tuple[str, ...] | None = None
    empty: int | None = None

    @cached_property
    def columns(self) -> frozenset[str]:
        """Columns of the models that the measure names."""
        return columns_of(self.measure)


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics that share models and dimensions: one file.

    Attributes:
        name: The family.
        stream: Stream whose rows its models hold; ``*`` for all of Headrace's own.
        label, description, owner: For people; the owner of metrics that name none.
        models, dimensions, metrics: By name.
        file: Where it is written; empty for what was made by itself.
    """

    name: str
    stream: str
    label: str
    description: str
    owner: str
    models: Mapping[str, Model]
    dimensions: Mapping[str, Dimension]
    metrics: Mapping[str, Metric]
    file: str = ""


KINDS, FORMATS, SHOWS, PLACES = (get_args(one) for one in (Kind, Format, Show, Place))
