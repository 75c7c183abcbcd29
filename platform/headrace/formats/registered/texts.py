"""Define what readers of registered schemas return: a JSON text for each message, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True, slots=True)
class Texts:
    """Messages as JSON.

    Attributes:
        payloads: Binary, the JSON text of each message; null where it could not be read.
        wrong: Why it could not, by row.
    """

    payloads: pl.Series
    wrong: dict[int, str] = field(default_factory=dict)


class Reader(Protocol):
    """Reads the messages of one schema.

    Attributes:
        check: Name of the check that a message fails if it does not fit its schema.
    """

    check: str

    def read(self, bodies: pl.Series) -> Texts:
        """Read messages without their framing: Binary, no nulls."""
        ...


def end_to_end(payloads: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return all bytes, where each payload begins in them, and where the last one ends."""
    whole: Any = payloads.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = whole.buffers()
    within = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return np.frombuffer(data or b"", np.uint8), within
