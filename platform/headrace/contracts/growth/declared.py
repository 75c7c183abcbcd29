"""Define what a field may declare about how it grew, and what it was at a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

from headrace.contracts.dtypes import instance

#: Names of the declarations among the metadata of a field.
DECLARATIONS = ("since", "retired", "was", "moved_to")
#: Arguments of ``field`` that Pandera makes checks of -> names of these checks.
CHECK_NAMES = {
    "eq": "equal_to",
    "ne": "not_equal_to",
    "gt": "greater_than",
    "ge": "greater_than_or_equal_to",
    "lt": "less_than",
    "le": "less_than_or_equal_to",
    "in_range": "in_range",
    "isin": "isin",
    "notin": "notin",
    "str_length": "str_length",
    "str_matches": "str_matches",
    "str_contains": "str_contains",
    "str_startswith": "str_startswith",
    "str_endswith": "str_endswith",
}


class _Kept:
    """Stands for an argument of ``Was`` that is not given."""

    def __repr__(self) -> str:
        return "as it is now"


_KEPT: Any = _Kept()


class Was:
    """What a field was up to and including a version; what is not named was as it is in later versions."""

    __slots__ = ("given",)

    def __init__(
        self,
        *,
        dtype: Any = _KEPT,
        name: str = _KEPT,
        required: bool = _KEPT,
        default: Any = _KEPT,
        length: tuple[int, int] | None = _KEPT,
        **checks: Any,
    ) -> None:
        """Declare what differed.

        Args:
            dtype: Its dtype, as the model writes it; must widen to the later one.
            name: Its name.
            required: Whether null or absent was a reason to reject.
            default: Its default; None for none.
            length: Shortest and longest text; None for any.
            checks: Pandera's built-in checks as ``field`` has them (``le=100``); None for a check that was not there.
        """
        #: Arguments by name: ``dtype`` as a Polars dtype, ``length`` as ``str_length``.
        self.given: Mapping[str, Any]
        said = {"dtype": dtype, "name": name, "required": required, "default": default, "str_length": length}
        given = {key: value for key, value in said.items() if value is not _KEPT} | checks
        if "dtype" in given:
            given["dtype"] = dtype_of(given["dtype"])
        if isinstance(given.get("str_length"), tuple):
            shortest, longest = given["str_length"]
            given["str_length"] = {"min_value": shortest, "max_value": longest}
        self.given = given

    def __repr__(self) -> str:
        return f"Was({', '.join(f'{key}={value!r}' for key, value in self.given.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Was) and dict(self.given) == dict(other.given)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.given)))


def dtype_of(written: Any) -> Any:
    """Return a dtype as an instance, from how a model writes it: ``pl.Int32``, ``Annotated[pl.Decimal, 18, 4]``."""
    if get_origin(written) is Annotated:
        base, *arguments = get_args(written)
        return base(*arguments)
    return instance(written)


@dataclass(frozen=True, slots=True)
class Growth:
    """How a field grew.

    Attributes:
        since: First version that has it.
        retired: First version that no longer asks for it; None if it is asked for.
        was: What it was up to and including a version, the oldest first.
        moved_to: Object column that gets its value when it still comes after it was retired; empty for none.
    """

    since: int = 1
    retired: int | None = None
    was: tuple[tuple[int, Was], ...] = field(default=())
    moved_to: str = ""

    def has(self, version: int) -> bool:
        """Tell whether a version has the field, retired or not."""
        return self.since <= version

    def asks(self, version: int) -> bool:
        """Tell whether a version asks for the field."""
        return self.has(version) and not self.is_retired(version)

    def is_retired(self, version: int) -> bool:
        """Tell whether a version accepts and ignores the field."""
        return self.retired is not None and version >= self.retired

    def at(self, version: int) -> Mapping[str, Any]:
        """Return what the field's declaration says otherwise at a version than it does now."""
        found: dict[str, Any] = {}
        for last, was in self.was:
            if last >= version:
                found = {**was.given, **found}
        return found

    def earlier(self, name: str) -> tuple[str, ...]:
        """Return the names that the field had before it had this one, the newest first."""
        names = [was.given["name"] for _, was in self.was if "name" in was.given]
        return tuple(dict.fromkeys(one for one in reversed(names) if one != name))

    def before(self, version: int) -> Growth:
        """Return how the field had grown by a version."""
        kept = tuple((last, was) for last, was in self.was if last < version)
        retired = self.retired if self.is_retired(version) else None
        return Growth(self.since, retired, kept, self.moved_to if retired else "")


#: A field that is as it always was.
ALWAYS = Growth()


def growth_of(declared: Mapping[str, Any]) -> Growth:
    """Return the growth among the metadata of a field that ``faults`` has passed."""
    given = {name: declared[name] for name in DECLARATIONS if name in declared}
    if not given:
        return ALWAYS
    was = tuple(sorted(given.get("was", {}).items(), key=lambda one: one[0]))
    return Growth(given.get("since", 1), given.get("retired"), was, given.get("moved_to", ""))
