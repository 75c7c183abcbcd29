"""Follow the pipeline files while the collector runs: which streams may be sent to, and by which contract.

A file is read again once it has not changed for a moment. One that does not load is named, and its streams go on as
they were; so does a stream whose contract cannot be used. A stream that is no more is refused at once. Its way to the
lake stays until the collector ends, for what was acknowledged before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.collector.judge import warm
from headrace.collector.prepare import Target
from headrace.collector.topics import QUEUE_BYTES, topic_of
from headrace.core.errors import Fatal
from headrace.pipelines import Pipeline, Sqs, discover_for
from headrace.pipelines.modules import written
from headrace.streams.adapters import limits_of

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two looks at the files, and for which they are to stay as they are before they are read.
LOOK_SECONDS, QUIET_SECONDS = 1.0, 1.0
#: Seconds that ``stop`` waits for files that are being read.
_STOP_SECONDS = 5.0

Follow = Callable[[Mapping[str, Pipeline]], object]


class Streams:
    """The streams that may be sent to. Others read the mappings, which change while they run.

    Attributes:
        pipelines: The declarations by name.
        targets: Streams that may be sent to, by name.
        judged: The same and those that are no more: what came just before is judged all the same.
        loads: How often something was loaded.
        missing: Streams of ``ready`` that cannot be sent to here, because their files do not load.
    """

    def __init__(self, settings: Settings, ready: Collection[str] | None = None) -> None:
        """Load the streams.

        Args:
            settings: Say where the files are.
            ready: Streams that somebody else sends on, who names what is wrong with the others, too; None for all.
        """
        self._settings, self._ready = settings, ready
        self.missing: frozenset[str] = frozenset()
        self.pipelines: dict[str, Pipeline] = {}
        self.targets: dict[str, Target] = {}
        self.judged: dict[str, Target] = {}
        self.loads = 0
        self._files: dict[str, Path] = {}
        self._wrong: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._stamps = written(settings.pipeline_folders)
        self.load(lambda _: None)
        if not self.targets and ready is None:
            log.warning(
                "no stream has a topic that takes JSON, or a queue, so every event is refused; see 'headrace status'"
            )

    def watch(self, follow: Follow) -> None:
        """Load again whenever files have changed, until ``stop``.

        Args:
            follow: Called with the streams before any event of them is taken by what they are now.
        """
        self._thread = threading.Thread(
            target=self._watch, args=(follow,), name="collector-reload", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a file that takes its time to load is left to itself."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _watch(self, follow: Follow) -> None:
        due: float | None = None
        while not self._stopping.wait(LOOK_SECONDS):
            now = time.monotonic()
            try:
                stamps = written(self._settings.pipeline_folders)
                if stamps != self._stamps:
                    self._stamps, due = stamps, now + QUIET_SECONDS
                elif due is not None and now >= due:
                    due = None
                    self.load(follow)
            except Exception:  # the next change is another chance
                log.exception("the pipeline files could not be followed")

    def load_these(self, ready: Collection[str]) -> None:
        """Load what the files say now of the streams that somebody else sends on."""
        self._ready = ready
        self.load(lambda _: None)

    def load(self, follow: Follow) -> None:
        """Load what the files say now; see ``watch``."""
        found = discover_for(self._settings)
        wrong = dict(found.broken)
        pipelines, targets, files = {}, {}, dict(found.files)
        for name, pipeline in found.pipelines.items():
            if self._ready is not None and name not in self._ready:
                continue
            try:
                target = self._target(pipeline)
            except Fatal as error:
                if self._ready is None:
                    log.warning("stream %r is not collected for: %s", name, error)
            except Exception as error:  # a class of the user's own raises only when it is used
                wrong[found.files[name].name] = f"{type(error).__name__}: {error}"
            else:
                pipelines[name], targets[name] = pipeline, target
        for name, file in self._files.items():
            if file.name in wrong and name not in pipelines and name in self.targets:
                pipelines[name], targets[name], files[name] = self.pipelines[name], self.targets[name], file
        if self._ready is None:
            self._name(wrong, files)
        follow(pipelines)
        if self._ready is None:
            self._say(targets)
        else:
            self.missing = frozenset(self._ready) - targets.keys()
        gone = self.targets.keys() - targets.keys()
        self.judged.update(targets)
        self.targets.update(targets)
        for name in gone:
            del self.targets[name]
        self.pipelines, self._files = pipelines, files
        self.loads += 1

    def _target(self, pipeline: Pipeline) -> Target:
        limits, before = limits_of(pipeline, self._settings), self.targets.get(pipeline.name)
        longest = QUEUE_BYTES if isinstance(topic_of(pipeline), Sqs) else None
        if (
            before is not None
            and before.contract is pipeline.contract
            and (before.limits, before.longest) == (limits, longest)
        ):
            return before
        target = Target(pipeline.contract, limits, longest)
        warm({pipeline.name: target})
        return target

    def _name(self, wrong: Mapping[str, str], files: Mapping[str, Path]) -> None:
        """Say once what is wrong with a file, and once that it is good again."""
        for file, why in wrong.items():
            if self._wrong.get(file) != why:
                kept = [name for name, one in files.items() if one.name == file and name in self.targets]
                so = f"; {', '.join(kept)} is taken as before" if kept else ""
                log.error("%s does not load: %s%s", file, why, so)
        for file in self._wrong.keys() - wrong.keys():
            log.info("%s loads again", file)
        self._wrong = dict(wrong)

    def _say(self, targets: Mapping[str, Target]) -> None:
        """Say what changes for who sends."""
        if not self.loads:
            return
        for name, target in targets.items():
            before, table = self.targets.get(name), target.contract.table
            if before is None:
                log.info("stream %r can be sent to", name)
            elif before.contract.table.description_json != table.description_json:
                log.info("stream %r is judged by its contract as it is now, version %s", name, table.version)
        for name in self.targets.keys() - targets.keys():
            log.warning("stream %r is no more, and its events are refused", name)
