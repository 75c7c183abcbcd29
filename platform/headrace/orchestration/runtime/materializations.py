"""Reports of materialisations, thousands at once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from dagster import AssetMaterialization, DagsterEvent, OpExecutionContext

from headrace.orchestration.runtime.trial import require, works


def report_materializations(context: OpExecutionContext, made: Sequence[AssetMaterialization]) -> None:
    """Log materialisations of other assets from within a run, as one batch.

    Where this Dagster takes no batches, each is logged by itself, with two commits of the event log.
    """
    if not works(
        "materialisations in batches", _try_batches, instead="each is reported by itself, which takes longer"
    ):
        for materialization in made:
            context.log_event(materialization)
        return
    from dagster._core.events import DagsterEventBatchMetadata

    step: Any = context.get_step_execution_context()
    batch_id = f"{context.run_id}:{step.step.key}"
    for n, materialization in enumerate(made):
        batch = DagsterEventBatchMetadata(batch_id, n == len(made) - 1)
        DagsterEvent.asset_materialization(step, materialization, batch_metadata=batch)


def _try_batches() -> None:
    from dagster._core.events import DagsterEventBatchMetadata

    last = DagsterEventBatchMetadata("tried", True)
    require((last.id, last.is_end) == ("tried", True), "a batch is described otherwise")
    inspect.signature(DagsterEvent.asset_materialization).bind(None, None, batch_metadata=last)
    inspect.signature(OpExecutionContext.get_step_execution_context).bind(None)
