"""Upkeep, as its job runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance, Definitions

from builders import NOW, event
from conftest import Stack
from headrace.bench.tasks import own_stream
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import MicroBatch
from headrace.core.errors import HistoryGone, Retriable
from headrace.orchestration import upkeep
from headrace.pipelines import Kafka


def test_the_job_maintains_every_table(defs: Definitions) -> None:
    with DagsterInstance.ephemeral() as instance:
        done = defs.resolve_job_def("upkeep").execute_in_process(instance=instance)
        assert done.success
        said = [
            e.user_message for e in instance.all_logs(done.run_id) if "old ones are gone" in e.user_message
        ]
    assert {line.split(":")[0] for line in said} == {
        "events",
        "events_rejected",
        "metrics",
        "metrics_rejected",
    }


def test_what_is_not_published_stays_in_the_log(
    stack: Stack, batch_of: Callable[..., MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, keep_log = timedelta(days=7), timedelta(hours=3)
    with own_stream(stack.settings, Kafka("none")) as stream:
        good = stream.lake.good
        for n in range(25):
            batch = batch_of([event(event_id=f"e-{n}")])
            rows = check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=Limits()).good
            good.open().append(rows, {"kafka/none/0": n + 1}, str(n))
        waiting = upkeep.log_needed_since(stream, good)
        assert waiting is not None
        assert datetime.now(UTC) - timedelta(minutes=10) < waiting < datetime.now(UTC)
        log = [*(stack.home.parent.rglob(f"{good.uri.rsplit('/', 2)[-2]}/events/_delta_log/*.json"))]
        assert len(log) == 26
        for path in log:
            os.utime(path, (1_700_000_000, 1_700_000_000))
        with monkeypatch.context() as patch:
            patch.setattr(stream.warehouse, "published", lambda *_: (_ for _ in ()).throw(Retriable("away")))
            good.maintain(keep, keep_log, upkeep.log_needed_since(stream, good))
        assert good.describe(1).rows == 1
        assert stream.publish().rows == 25
        assert upkeep.log_needed_since(stream, good) is None
        good.maintain(keep, keep_log, upkeep.log_needed_since(stream, good))
        with pytest.raises(HistoryGone):
            good.describe(1)
        with pytest.raises(HistoryGone):
            good.committed_at(1)
        good.open().append(rows.clear(), {"kafka/none/0": 26}, "empty")
        assert upkeep.log_needed_since(stream, good) is not None, (
            "publishing begins with a version without rows"
        )
        assert stream.publish().rows == 0
