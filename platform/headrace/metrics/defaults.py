"""Make the definitions of a stream that has none: what landed, and what was rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.metrics.definitions import Family, Metric, Model

if TYPE_CHECKING:
    from headrace.pipelines import Pipeline


def family(pipeline: Pipeline) -> Family:
    """Return the family of a stream by itself: rows that landed and records that were rejected, by day."""
    contract = pipeline.contract
    name, owner = pipeline.name, pipeline.owner or "team:data"
    good, rejected = contract.table.name, contract.rejected_table.name
    models = {
        good: Model(good, contract.time, contract.partition, "raw", live=True),
        rejected: Model(rejected, "_ingested_at", "rejected_date", "raw", live=True),
    }

    def metric(own: str, label: str, said: str, model: str, unit: str) -> Metric:
        return Metric(
            own, name, name, label, said, "count()", (model,), (), unit, "integer", "line", owner, empty=0
        )

    label = name.replace("_", " ").capitalize()
    metrics = [
        metric(
            f"{name}_landed",
            f"{label}: landed",
            f"Rows of {name} that landed, on the day of their {contract.time}; what was sent twice counts twice.",
            good,
            "rows",
        ),
        metric(
            f"{name}_rejected",
            f"{label}: rejected",
            f"Records that the contract of {name} refused, on the day on which they landed.",
            rejected,
            "records",
        ),
    ]
    return Family(name, name, label, pipeline.description, owner, models, {}, {m.name: m for m in metrics})
