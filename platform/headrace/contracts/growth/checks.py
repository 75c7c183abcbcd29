"""Compare the checks of a field, as ``describe`` has them, before and after a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from headrace.contracts.growth.declared import CHECK_NAMES

Checks = Mapping[str, Mapping[str, Any]]
Change = Literal["tightened", "loosened"]

#: Arguments of ``field`` by the check that pandera makes of them.
ARGUMENTS = {check: argument for argument, check in CHECK_NAMES.items()}
#: Checks that say the smallest or the largest value -> whether that value passes.
_LOW: dict[str, bool] = {"greater_than": False, "greater_than_or_equal_to": True}
_HIGH: dict[str, bool] = {"less_than": False, "less_than_or_equal_to": True}
#: Checks that compare with each other, by what they limit; any other one is judged by itself.
_OF_RANGE = frozenset({*_LOW, *_HIGH, "in_range"})
_OF_CHOICE = {"isin": "allowed_values", "equal_to": "value"}
_OF_EXCEPTIONS = {"notin": "forbidden_values", "not_equal_to": "value"}


def changed_checks(before: Checks, after: Checks, *, numbers: bool) -> Iterator[tuple[Change, str, str]]:
    """Yield what became tighter or looser, with the checks before and after, as models write them.

    A bound, a length or a set of choices that moved is one of both, or both. Checks that cannot be compared, such as
    patterns and functions of one's own, count as tightened where they are new or others, and as loosened where they
    are gone.

    Args:
        before: Checks as they were: their arguments by name.
        after: Checks as they are.
        numbers: Whether texts in bounds are numbers, as those of decimals are.
    """
    for names, compared in (
        (_OF_RANGE, _range),
        ({"str_length"}, _length),
        (_OF_CHOICE, _choice),
        (_OF_EXCEPTIONS, _exceptions),
    ):
        old = {name: before[name] for name in before if name in names}
        new = {name: after[name] for name in after if name in names}
        if old != new:
            for change in compared(old, new, numbers):
                yield change, shown(old), shown(new)
    grouped = {*_OF_RANGE, "str_length", *_OF_CHOICE, *_OF_EXCEPTIONS}
    for name in sorted({*before, *after} - grouped):
        old, new = _one(before, name), _one(after, name)
        if old != new:
            yield "tightened" if new else "loosened", shown(old), shown(new)


def shown(checks: Checks) -> str:
    """Spell checks as the arguments of ``field``; empty for none."""
    return ", ".join(_shown(name, arguments) for name, arguments in checks.items())


def argument_text(before: Checks, after: Checks) -> str:
    """Spell the arguments of ``Was`` that say what checks were: those that were others, and None for new ones."""
    other = {name: checks for name, checks in before.items() if checks != after.get(name)}
    new = [f"{_argument(name)}=None" for name in after if name not in before]
    return ", ".join([shown(other), *new] if other else new)


def _argument(name: str) -> str:
    return "length" if name == "str_length" else ARGUMENTS.get(name, name)


def _shown(name: str, arguments: Mapping[str, Any]) -> str:
    if name == "str_length" and "exact_value" not in arguments:
        return f"length=({arguments.get('min_value', 0)}, {arguments.get('max_value')})"
    if len(arguments) == 1:
        return f"{ARGUMENTS.get(name, name)}={next(iter(arguments.values()))!r}"
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _one(checks: Checks, name: str) -> dict[str, Mapping[str, Any]]:
    return {name: checks[name]} if name in checks else {}


def _range(before: Checks, after: Checks, numbers: bool) -> Iterator[Change]:
    (low, high), (new_low, new_high) = _bounds(before, numbers), _bounds(after, numbers)
    moved = (_against(new_low, low, 1), _against(new_high, high, -1))
    if any(one > 0 for one in moved):
        yield "tightened"
    if any(one < 0 for one in moved):
        yield "loosened"


#: A bound: its value, and whether a value that equals it passes.
_Bound = tuple[Any, bool] | None


def _bounds(checks: Checks, numbers: bool) -> tuple[_Bound, _Bound]:
    low: _Bound = None
    high: _Bound = None
    for name, given in checks.items():
        if name in _LOW or name == "in_range":
            passes = bool(given.get("include_min", True)) if name == "in_range" else _LOW[name]
            one = (_comparable(given["min_value"], numbers), passes)
            low = one if _against(one, low, 1) > 0 else low
        if name in _HIGH or name == "in_range":
            passes = bool(given.get("include_max", True)) if name == "in_range" else _HIGH[name]
            one = (_comparable(given["max_value"], numbers), passes)
            high = one if _against(one, high, -1) > 0 else high
    return low, high


def _against(new: _Bound, old: _Bound, direction: int) -> int:
    """Return 1 if a bound is tighter than another, -1 if it is looser; ``direction`` is 1 for lower ones."""
    if new is None or old is None:
        return (new is not None) - (old is not None)
    if new[0] != old[0]:
        return direction if new[0] > old[0] else -direction
    return int(old[1]) - int(new[1])


def _comparable(value: Any, numbers: bool) -> Any:
    return Decimal(value) if numbers and isinstance(value, str) else value


def _length(before: Checks, after: Checks, _: bool) -> Iterator[Change]:
    (low, high), (new_low, new_high) = _lengths(before), _lengths(after)
    if new_low > low or new_high < high:
        yield "tightened"
    if new_low < low or new_high > high:
        yield "loosened"


def _lengths(checks: Checks) -> tuple[float, float]:
    arguments = checks.get("str_length", {})
    exact = arguments.get("exact_value")
    if exact is not None:
        return exact, exact
    return arguments.get("min_value", 0), arguments.get("max_value", float("inf"))


def _choice(before: Checks, after: Checks, _: bool) -> Iterator[Change]:
    yield from _sets(_allowed(before), _allowed(after))


def _allowed(checks: Checks) -> set[str] | None:
    """Return the values that pass; None for all."""
    found = [set(map(repr, _values(checks, name, key))) for name, key in _OF_CHOICE.items() if name in checks]
    return set.intersection(*found) if found else None


def _sets(before: set[str] | None, after: set[str] | None) -> Iterator[Change]:
    if after is not None and (before is None or before - after):
        yield "tightened"
    if before is not None and (after is None or after - before):
        yield "loosened"


def _exceptions(before: Checks, after: Checks, _: bool) -> Iterator[Change]:
    old, new = _refused(before), _refused(after)
    if new - old:
        yield "tightened"
    if old - new:
        yield "loosened"


def _refused(checks: Checks) -> set[str]:
    return {
        repr(value)
        for name, key in _OF_EXCEPTIONS.items()
        if name in checks
        for value in _values(checks, name, key)
    }


def _values(checks: Checks, name: str, key: str) -> list[Any]:
    found = checks[name][key]
    return found if isinstance(found, list) else [found]
