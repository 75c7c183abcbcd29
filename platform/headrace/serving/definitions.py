"""Follow the files of definitions while the server runs.

A file is read again once it has not changed for a moment. One that does not load is named, and what it declared before
goes on; at a start, everything else does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.metrics import Catalogue, DefinitionError, Family, load
from headrace.metrics.catalogue import Stamps, project_files, stamps
from headrace.metrics.loading import Widths, read

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two looks at the files; they are read once two looks have found the same.
LOOK_SECONDS = 1.0


class Definitions:
    """The definitions as the files have them, and of a file that does not load as they were."""

    def __init__(self, settings: Settings) -> None:
        """Read nothing yet."""
        self._settings = settings
        self._good: dict[Path, Family] = {}
        self._wrong: dict[Path, str] = {}
        self._loaded: Stamps = ()

    def load(self) -> Catalogue:
        """Load what the files say now.

        Raises:
            DefinitionError: Two files declare one name.
        """
        wrong: dict[Path, str] = {}
        self._loaded = stamps(self._settings)

        def reading(path: Path, widths: Widths) -> Family | None:
            try:
                self._good[path] = read(path, widths)
            except DefinitionError as error:
                wrong[path] = str(error)
            return self._good.get(path)

        found = load(self._settings, reading=reading)
        there = {*project_files(self._settings)}
        self._good = {path: one for path, one in self._good.items() if path in there}
        self._say(wrong)
        return found

    def _say(self, wrong: dict[Path, str]) -> None:
        """Say once what is wrong with a file, and once that it is good again."""
        for path, why in wrong.items():
            if self._wrong.get(path) != why:
                so = "it goes on as it was" if path in self._good else "its metrics are left out"
                log.error("%s; %s", why, so)
        for path in self._wrong.keys() - wrong.keys():
            log.info("%s loads again", path)
        self._wrong = wrong

    async def follow(self, use: Callable[[Catalogue], object], seconds: float = LOOK_SECONDS) -> None:
        """Load again whenever files have changed, for ever.

        Args:
            use: Called with the definitions, in this event loop.
            seconds: Between two looks.
        """
        before = self._loaded
        while True:
            await asyncio.sleep(seconds)
            now = await asyncio.to_thread(stamps, self._settings)
            quiet, before = now == before, now
            if now == self._loaded or not quiet:
                continue
            try:
                use(await asyncio.to_thread(self.load))
                log.info("the definitions have been read again")
            except DefinitionError as error:
                log.error("%s; all goes on as it was", error)
            except Exception:  # a defect in a file of the user's own; the next change is another chance
                log.exception("the definitions could not be read again")
