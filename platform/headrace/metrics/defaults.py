"""Make the definitions of a stream that has none: what landed, what was rejected, and its marts as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headrace.metrics.definitions import Dimension, Family, Format, Kind, Metric, Model
from headrace.metrics.loading import RESERVED
from headrace.metrics.windows import DAY

if TYPE_CHECKING:
    from headrace.pipelines import Pipeline

_NUMBER = re.compile(r"(Nullable\()?(U?Int\d+|Float\d+|Decimal\(.*\))\)?")
_WHOLE = re.compile(r"U?Int\d+")
#: Kind of a dimension by the type of its column; other types make none.
_KINDS: tuple[tuple[str, Kind], ...] = (
    (r"(LowCardinality\()?(Nullable\()?String\)*|Enum.*", "category"),
    (r"Bool", "boolean"),
    (r"U?Int\d+", "number"),
    (r"Date", "time"),
)


def family(pipeline: Pipeline, manifest: Mapping[str, Any] | None = None) -> Family:
    """Return the family of a stream by itself.

    What landed and what was rejected is counted from the raw tables. Each number of a mart with one row a day and
    grain is a metric that adds up over nothing, since nobody has said over what it does.

    Args:
        pipeline: The stream.
        manifest: Content of dbt's ``manifest.json``; None leaves the marts out.
    """
    contract = pipeline.contract
    name, owner = pipeline.name, pipeline.owner or "team:data"
    good, rejected = contract.table.name, contract.rejected_table.name
    models = {
        good: Model(good, contract.time, contract.partition, "raw", live=True),
        rejected: Model(rejected, "_ingested_at", "rejected_date", "raw", live=True),
    }
    label = _label(name)
    landed = (
        f"Rows of {name} that landed, on the day of their {contract.time}; what was sent twice counts twice."
    )
    refused = f"Records that the contract of {name} refused, on the day on which they landed."
    metrics = [
        _rows(name, "landed", f"{label}: landed", landed, good, "rows", owner),
        _rows(name, "rejected", f"{label}: rejected", refused, rejected, "records", owner),
    ]
    dimensions: dict[str, Dimension] = {}
    for node, day, grain in _marts(pipeline, manifest or {}):
        columns = node["columns"]
        own = {one: _dimension(columns[one]) for one in grain if one != day}
        if None in own.values() or any(dimensions.get(n, d) != d for n, d in own.items()):
            continue
        dimensions |= {n: d for n, d in own.items() if d}
        models[node["name"]] = Model(
            node["name"], day, day, widths=(DAY,), dimensions=tuple(own), grain=tuple(own)
        )
        numbers = (
            c for c in columns.values() if c["name"] not in grain and _NUMBER.fullmatch(str(c["data_type"]))
        )
        metrics += [_number(name, node, column, tuple(own), owner) for column in numbers]
    return Family(
        name, name, label, pipeline.description, owner, models, dimensions, {one.name: one for one in metrics}
    )


def _rows(stream: str, what: str, label: str, said: str, model: str, unit: str, owner: str) -> Metric:
    return Metric(
        f"{stream}_{what}", stream, stream, label, said, "count()", (model,), (), unit, "integer", "line", owner,
        empty=0,
    )  # fmt: skip


def _marts(pipeline: Pipeline, manifest: Mapping[str, Any]) -> Iterator[tuple[Any, str, list[str]]]:
    """Yield the marts of a stream of which a test says day and grain."""
    tests = [one for one in manifest.get("nodes", {}).values() if one["resource_type"] == "test"]
    for node in manifest.get("nodes", {}).values():
        if (
            node["resource_type"] != "model"
            or pipeline.models not in node["tags"]
            or "daily" not in node["tags"]
        ):
            continue
        for test in tests:
            told = test.get("test_metadata") or {}
            if test.get("attached_node") != node["unique_id"] or told.get("name") != "holds":
                continue
            given = told["kwargs"].get("arguments") or told["kwargs"]
            day, grain = given.get("day"), list(given.get("grain", ()))
            if day in grain and set(grain) <= set(node["columns"]):
                yield node, day, grain
                break


def _dimension(column: Mapping[str, Any]) -> Dimension | None:
    name, type_ = column["name"], str(column["data_type"])
    kind = next((kind for form, kind in _KINDS if re.fullmatch(form, type_)), None)
    if kind is None or name in RESERVED:
        return None
    return Dimension(name, kind, _label(name), column["description"], column=name)


def _number(
    stream: str, node: Mapping[str, Any], column: Mapping[str, Any], dimensions: tuple[str, ...], owner: str
) -> Metric:
    name, form = column["name"], "integer" if _WHOLE.fullmatch(str(column["data_type"])) else "decimal"
    shown: Format = "integer" if form == "integer" else "decimal"
    said = f"{column['description'].rstrip('. ')}. As the rows of {node['name']} have it: it adds up over nothing."
    return Metric(
        f"{node['name']}_{name}", stream, stream, f"{_label(node['name'])}: {name.replace('_', ' ')}", said,
        f"sum({name})", (node["name"],), dimensions, "", shown, "line", owner, adds_up_over=(),
    )  # fmt: skip


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()
