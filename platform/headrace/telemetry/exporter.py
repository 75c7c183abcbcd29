"""Answer scrapes with what was measured last, and follow the pipelines: a stream that is added gets its parts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from headrace.pipelines import Pipeline, discover_for
from headrace.telemetry import families
from headrace.telemetry.background import Kept
from headrace.telemetry.families import Reading
from headrace.telemetry.parts import Part, of_stream
from headrace.telemetry.platform import of_platform, told_by_collector

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Streams with parts at most, so that a folder of a thousand pipelines does not make ten thousand threads.
MOST_STREAMS = 100
_FOLLOW_SECONDS = 10.0


class Exporter:
    """The measurements of an installation. ``start`` it, ask for ``text`` from any thread, ``stop`` it in the end.

    Args:
        parts: Parts that belong to no stream.
        pipelines: Gives the pipelines as they are now; asked at intervals.
        parts_of: Gives the parts of a pipeline.
        seconds: Pause between two looks at a usual part.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        pipelines: Callable[[], Mapping[str, Pipeline]] = dict,
        parts_of: Callable[[Pipeline], Iterable[Part]] = lambda _: (),
        *,
        seconds: float = 10.0,
    ) -> None:
        self._seconds, self._pipelines, self._parts_of = seconds, pipelines, parts_of
        self._own = [self._kept(part) for part in parts]
        self._of_streams: dict[str, tuple[Pipeline, list[Kept]]] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: Others may add collectors of what they count themselves.
        self.registry = CollectorRegistry()
        self.registry.register(ProcessCollector(registry=None))

    def _kept(self, part: Part) -> Kept:
        return Kept(part, self._seconds * part.every)

    @property
    def kept(self) -> list[Kept]:
        """Every part with what was measured last."""
        return [*self._own, *(one for _, every in self._of_streams.values() for one in every)]

    def start(self) -> None:
        """Measure from now on, in threads of its own."""
        for one in self._own:
            one.start()
        self._thread = threading.Thread(target=self._run, name="telemetry streams", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Measure no more; a part that hangs is left to itself."""
        self._stopping.set()
        every = self.kept
        for one in every:
            one.ask_to_stop()
        for one in every:
            one.wait_to_stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.follow()
            except Exception:  # the next look is another chance
                log.exception("telemetry: the pipelines could not be followed")
            self._stopping.wait(_FOLLOW_SECONDS)

    def follow(self) -> None:
        """Begin to measure streams that are new or changed, and end with those that are no more."""
        found = dict(list(self._pipelines().items())[:MOST_STREAMS])
        before = self._of_streams
        after = {
            name: before[name] if name in before and before[name][0] is pipeline else self._begun(pipeline)
            for name, pipeline in found.items()
        }
        self._of_streams = after
        for name, (pipeline, kept) in before.items():
            if name not in after or after[name][0] is not pipeline:
                for one in kept:
                    one.ask_to_stop()

    def _begun(self, pipeline: Pipeline) -> tuple[Pipeline, list[Kept]]:
        kept = [self._kept(part) for part in self._parts_of(pipeline)]
        for one in kept:
            one.start()
        return pipeline, kept

    def readings(self) -> Iterator[Reading]:
        """Yield what is to be told now. Never waits."""
        for one in self.kept:
            yield from one.state()
            if (told := one.told()) is not None:
                yield from told.readings

    def text(self) -> bytes:
        """Render what is to be told now, in Prometheus' text format. Never waits."""
        kept = self.kept
        told = [look.lines for one in kept if (look := one.told()) is not None]
        states = families.lines(reading for one in kept for reading in one.state())
        return families.page([*told, states]).encode() + generate_latest(self.registry)


class CollectorsOwn(Collector):
    """What the collector of events measures itself, fetched in the background like any other part."""

    #: Begin of the names that are passed on.
    PREFIX = "headrace_collector_"

    def __init__(self, fetch: Callable[[], bytes]) -> None:
        self._fetch = fetch
        self._told: list[Metric] = []

    def measure(self) -> Iterable[Reading]:
        """Fetch it; gives no readings of its own."""
        self._told = []
        text = self._fetch().decode()
        taken = {family.name for family in families.FAMILIES}
        self._told = [
            one
            for one in text_string_to_metric_families(text)
            if one.name.startswith(self.PREFIX) and one.name not in taken
        ]
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return what was told last; nothing once a fetch has failed."""
        return self._told

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead."""
        return ()


def exporter(settings: Settings) -> Exporter:
    """Make the exporter of an installation, which measures nothing yet."""
    own = CollectorsOwn(lambda: told_by_collector(settings, seconds=3.0))
    made = Exporter(
        [*of_platform(settings), Part("collector_metrics", own.measure)],
        lambda: discover_for(settings).pipelines,
        lambda pipeline: of_stream(pipeline, settings),
        seconds=settings.telemetry_seconds,
    )
    made.registry.register(own)
    return made
