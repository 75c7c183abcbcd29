"""Reload Dagster's code location when pipeline files or the dbt project have changed."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable

from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError
from headrace.local.dagster_api import DagsterApi
from headrace.models import sources
from headrace.models import versions as dbt_versions
from headrace.models.versions import Project
from headrace.pipelines.modules import module_files, stamps, written

_LOOK_SECONDS = 1.0
#: Reload once the files have not changed for this long.
_QUIET_SECONDS = 2.0
#: Interval at which an unreadable project is read again: the cause may lie outside its files.
_AGAIN_SECONDS = 60.0


class Reloader:
    """Watch the files, and request a reload once changed content has been stable for a moment."""

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        """Record the present state of the files.

        Args:
            settings: Locate the files. Create this before Dagster starts, so that no change is missed.
            report: Receives a line for each reload and for each error of the models.
        """
        self._settings, self._report = settings, report
        self._stamps = self._look()
        self._write_sources()
        self._loaded = (self._pipelines(), dbt_versions.current(settings))

    @property
    def project(self) -> Project:
        """The dbt project as it was loaded."""
        return self._loaded[1]

    def watch(self, api: DagsterApi, stop: threading.Event) -> None:
        """Watch until ``stop`` is set."""
        due: float | None = None
        while not stop.wait(_LOOK_SECONDS):
            now, stamps = time.monotonic(), self._look()
            if stamps != self._stamps:
                self._stamps, due = stamps, now + _QUIET_SECONDS
            elif due is None and self.project.problem is not None:
                due = now + _AGAIN_SECONDS
            if due is not None and now >= due:
                due = None if self._reload_changed(api) else now + _QUIET_SECONDS

    def _reload_changed(self, api: DagsterApi) -> bool:
        """Reload if something has changed; return whether everything is loaded."""
        self._write_sources()
        try:
            found = (self._pipelines(), dbt_versions.current(self._settings))
            if found == self._loaded:
                return True
            wrong = api.reload()
        except (HeadraceError, OSError):  # not reachable or half-written: the next look retries
            return False
        if found[1].problem != self.project.problem:
            self._report(found[1].complaint or "the dbt project is good again")
        self._loaded = found
        self._report(
            f"reloaded, with an error: {wrong}" if wrong else "reloaded: pipelines or models have changed"
        )
        return True

    def _write_sources(self) -> None:
        """Write dbt's sources of a project whose contracts have changed, so that its models can be parsed."""
        settings = self._settings
        if settings.project is None:
            return
        from headrace.pipelines import discover_for

        found = discover_for(settings)
        try:
            for one in sources.write(dbt_versions.dbt_folder(settings), found):
                name = one.path.relative_to(settings.project_dir)
                self._report(f"{name} {'removed' if one.text is None else 'written'}, as its contract is")
        except (Fatal, OSError) as error:  # somebody's own file, a full disk: doctor says it, too
            self._report(f"dbt's sources stay as they are: {error}")

    def _look(self) -> frozenset[tuple[str, int, int]]:
        models = dbt_versions.files(dbt_versions.dbt_folder(self._settings))
        return frozenset((*written(self._settings.pipeline_folders), *stamps(models)))

    def _pipelines(self) -> str:
        """Return the checksum of all files that may define pipelines."""
        digest = hashlib.sha256()
        for folder in self._settings.pipeline_folders:
            for path in module_files(folder):
                with contextlib.suppress(OSError):  # removed or half-written: the next look sees it
                    digest.update(f"{path}\0".encode() + path.read_bytes())
        return digest.hexdigest()
