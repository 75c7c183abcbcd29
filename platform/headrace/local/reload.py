"""Reload Dagster's code location when a person has changed what it is made of: pipeline files, the dbt project."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.config.settings import Settings
from headrace.core.errors import HeadraceError
from headrace.local.dagster_api import DagsterApi
from headrace.models import versions as dbt_versions
from headrace.models.versions import Project

_LOOK_SECONDS = 1.0
#: A change is taken up once nobody has written for so long.
_QUIET_SECONDS = 2.0
#: A project that could not be read for other reasons than what is in it is tried again, s.
_AGAIN_SECONDS = 60.0


class Reloader:
    """Watches the files, and asks for a reload when their content has changed and nobody is writing."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        """Args:
        settings: Where the files are. Made before Dagster is started, so that no change is missed.
        say: Receives a line for each reload, and for what is wrong with the models.
        """
        self._settings, self._say = settings, say
        self._stamps = self._look()
        self._loaded = (self._pipelines(), dbt_versions.current(settings))

    @property
    def project(self) -> Project:
        """The dbt project as it was loaded."""
        return self._loaded[1]

    def watch(self, api: DagsterApi, stop: threading.Event) -> None:
        """Go on until asked to stop."""
        due: float | None = None
        while not stop.wait(_LOOK_SECONDS):
            now, stamps = time.monotonic(), self._look()
            if stamps != self._stamps:
                self._stamps, due = stamps, now + _QUIET_SECONDS
            elif due is None and self.project.problem is not None:
                due = now + _AGAIN_SECONDS
            if due is not None and now >= due:
                due = None if self._reload(api) else now + _QUIET_SECONDS

    def _reload(self, api: DagsterApi) -> bool:
        """Reload if anything has changed; whether all is loaded now."""
        try:
            found = (self._pipelines(), dbt_versions.current(self._settings))
            if found == self._loaded:
                return True
            wrong = api.reload()
        except (HeadraceError, OSError):  # away or half-written: the next look tries again
            return False
        if found[1].problem != self.project.problem:
            self._say(found[1].complaint or "the dbt project is good again")
        self._loaded = found
        self._say(
            f"reloaded, with an error: {wrong}" if wrong else "reloaded: pipelines or models have changed"
        )
        return True

    def _look(self) -> frozenset[tuple[str, int, int]]:
        return frozenset(self._stat())

    def _stat(self) -> Iterator[tuple[str, int, int]]:
        files = [path for folder in self._settings.pipeline_folders for path in _modules(folder)]
        files += dbt_versions.files(dbt_versions.dbt_folder(self._settings))
        for path in files:
            with contextlib.suppress(OSError):
                found = path.stat()
                yield str(path), found.st_mtime_ns, found.st_size

    def _pipelines(self) -> str:
        """Checksum of the files that pipelines may be made of."""
        digest = hashlib.sha256()
        for folder in self._settings.pipeline_folders:
            for path in _modules(folder):
                with contextlib.suppress(OSError):  # removed or half-written: the next look sees it
                    digest.update(f"{path}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def _modules(folder: Path) -> list[Path]:
    """Where pipelines and what they import may be."""
    return sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])
