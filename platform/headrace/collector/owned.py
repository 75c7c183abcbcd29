"""Open what one process alone may have of a collector: its log and index, and what sends from there to the lake."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from headrace.collector.commit import Committer
from headrace.collector.dispatch import Dispatcher, far_of
from headrace.collector.ids import Ids
from headrace.collector.keys import Keys, first_key
from headrace.collector.limits import Rated
from headrace.collector.log import DurableLog
from headrace.collector.meters import Meters
from headrace.collector.progress import LakeProgress
from headrace.collector.reload import Streams
from headrace.collector.topics import topic_of
from headrace.core.lanes import cursor_of, spread
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owned:
    """What is open, and takes nothing yet.

    Attributes:
        streams: The streams.
        log: The log.
        ids: The index.
        dispatcher: Sends what the log holds to topics; ``start`` starts it.
        meters: What is counted.
        committer: Commits parcels.
        progress: Says how far entries are.
        ways: Gives each stream its way.
    """

    streams: Streams
    log: DurableLog
    ids: Ids
    dispatcher: Dispatcher
    meters: Meters
    committer: Committer
    progress: LakeProgress
    ways: Ways

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return what is measured at the moment, by name: description and value."""
        return {
            "headrace_collector_log_bytes": (
                "Bytes of the log that the lake does not have yet.",
                self.log.bytes,
            ),
            "headrace_collector_waiting_entries": (
                "Entries that the lake does not have yet, as far as is known.",
                max(0, self.log.next - max(self.dispatcher.landed, self.log.oldest)),
            ),
            "headrace_collector_problems": (
                "Streams whose entries do not reach their topics.",
                len(self.dispatcher.problems),
            ),
        }


class Ways:
    """Gives each stream its way to the lake, and a look at how far it is; another one where topic or table change."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher, progress: LakeProgress) -> None:
        self._settings, self._dispatcher, self._progress = settings, dispatcher, progress
        self._ends: dict[str, tuple[object, ...]] = {}

    def follow(self, pipelines: Mapping[str, Pipeline]) -> None:
        """Follow the streams as they are now."""
        for name, pipeline in pipelines.items():
            end = topic_of(pipeline), pipeline.contract.table.name, pipeline.contract.rejected_table.name
            if self._ends.get(name) == end:
                continue
            # each stream is for one thread
            self._dispatcher.follow(name, far_of(Stream(pipeline, self._settings, retry=False)))
            self._progress.follow(name, Stream(pipeline, self._settings, retry=False))
            self._ends[name] = end


@contextmanager
def owned(settings: Settings) -> Iterator[Owned]:
    """Open log and index, and send what the log holds; when it is left, everything is closed.

    Args:
        settings: Where everything is.

    Raises:
        Busy: Another process has its log.
        Fatal: Log, index or keys cannot be opened.
    """
    with ExitStack() as held:
        streams = Streams(settings)
        folder = settings.collector_folder
        durable = DurableLog(folder / "log", limit_bytes=settings.collector_log_bytes)
        held.callback(durable.close)
        ids = Ids(folder / "ids", timedelta(days=settings.collector_repeat_days))
        held.callback(ids.close)
        if added := ids.catch_up(durable):
            log.info("%s entries of the log were added to the index", f"{added:,}")
        _make_first_key(settings)
        dispatcher = Dispatcher(durable, ids, {})
        held.callback(dispatcher.stop)
        meters = Meters()
        progress = LakeProgress(
            {},
            lambda number: spread(number, durable.lanes),
            [cursor_of(durable.id, lane) for lane in range(durable.lanes)],
            dispatcher.in_topic,
        )
        held.callback(progress.close)
        ways = Ways(settings, dispatcher, progress)
        ways.follow(streams.pipelines)
        dispatcher.start()
        committer = Committer(durable, ids, meters, Rated())
        yield Owned(streams, durable, ids, dispatcher, meters, committer, progress, ways)


def _make_first_key(settings: Settings) -> None:
    if settings.collector_anonymous:
        return
    if (made := first_key(Keys(settings.collector_keys_file), settings.collector_first_key)) is not None:
        log.warning("a first write key 'default' was made; %s has it", made)
