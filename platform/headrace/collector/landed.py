"""Remember of each stream up to which number its entries have landed, for the day on which there is no such stream.

A stream's lake says how far it is. Of a stream that is no more, nobody knows its lake, so the next start would keep the
whole log for entries that landed long ago. The file is a hint: what it lacks is kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from headrace.core.atomic import write_atomically

log = logging.getLogger(__name__)


class Landed(Mapping[str, int]):
    """Number below which all entries of a stream have landed, by stream. One thread notes, others read.

    Args:
        path: The file.
        log_id: Id of the log: numbers of another one say nothing.
    """

    def __init__(self, path: Path, log_id: str) -> None:
        self._path, self._log_id = path, log_id
        self._numbers: dict[str, int] = {}
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            said = json.loads(path.read_text())
            if said["log"] == log_id:
                self._numbers = {str(name): int(number) for name, number in said["landed"].items()}

    def __getitem__(self, stream: str) -> int:
        """Return the number of a stream."""
        return self._numbers[stream]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the streams."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many streams there are."""
        return len(self._numbers)

    def note(self, landed: Mapping[str, int]) -> None:
        """Note how far streams are; numbers only grow."""
        numbers = {**self._numbers, **{s: max(n, self._numbers.get(s, 0)) for s, n in landed.items()}}
        if numbers == self._numbers:
            return
        self._numbers = numbers
        try:
            write_atomically(self._path, json.dumps({"log": self._log_id, "landed": numbers}))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
