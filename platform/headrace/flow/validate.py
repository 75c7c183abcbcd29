"""Check a micro-batch against its contract, as of now."""

from __future__ import annotations

from datetime import UTC, datetime

from headrace.contracts import Contract, Limits, check_batch
from headrace.core.batch import CheckedBatch, MicroBatch, new_batch_id


def validate(batch: MicroBatch, contract: Contract, limits: Limits) -> CheckedBatch:
    """Split a micro-batch into good and rejected rows, under a new batch id."""
    return check_batch(contract, batch, batch_id=new_batch_id(batch), now=datetime.now(UTC), limits=limits)
