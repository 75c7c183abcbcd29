"""Define what is wrong with a definition or with a question: field, value and the nearest right choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headrace.core.errors import BadData, Fatal


class DefinitionError(Fatal):
    """A file of definitions cannot be used.

    Attributes:
        file: The file.
        key: Path of the key in it, such as ``metrics.events.measure``; empty for the file as a whole.
    """

    def __init__(self, file: Path | str, key: str, said: str) -> None:
        self.file, self.key = Path(file), key
        super().__init__(f"{file}: {key}: {said}" if key else f"{file}: {said}")


class QuestionError(BadData):
    """A question cannot be answered as it was asked.

    Attributes:
        field: Part of the question: ``metric``, ``from``, ``to``, ``window``, ``dimensions``, ``filters``, ``order``,
            ``limit`` or ``compare``.
        value: What was given.
        said: What is wrong with it, without field and value.
        nearest: The right choice that is nearest; None if there is none.
        choices: All right choices, where they can be listed.
    """

    def __init__(
        self, field: str, value: Any, said: str, *, nearest: str | None = None, choices: Iterable[str] = ()
    ) -> None:
        self.field, self.value, self.said = field, value, said
        self.nearest, self.choices = nearest, tuple(choices)
        super().__init__(f"{field} {_shown(value)}: {said}{hint(nearest, self.choices)}")

    def as_dict(self) -> dict[str, Any]:
        """Return field, value, message, nearest and choices, for an answer in JSON."""
        return {
            "field": self.field,
            "value": self.value
            if isinstance(self.value, str | int | float | list | None)
            else str(self.value),
            "message": str(self),
            "nearest": self.nearest,
            "choices": list(self.choices),
        }


def nearest(name: object, choices: Iterable[str]) -> str | None:
    """Return the choice that was most likely meant; None if none is near."""
    found = difflib.get_close_matches(str(name).lower(), list(choices), n=1, cutoff=0.5)
    return found[0] if found else None


def hint(near: str | None, choices: Iterable[str]) -> str:
    """Return the end of a message: the nearest choice, or all of them."""
    if near:
        return f"; did you mean {near}?"
    listed = list(choices)
    return f"; there are {', '.join(listed)}" if listed else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
