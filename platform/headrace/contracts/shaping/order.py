"""Order computed fields by what they need, and find circles among them."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.contracts.shaping.declared import PAYLOAD, POSITION, Shape


def needs_of(shape: Shape) -> tuple[str, ...]:
    """Return the fields that a computed field is made from, each once."""
    if shape.derive is not None:
        return tuple(dict.fromkeys(shape.derive.meta.root_names()))
    return () if shape.hashed in (PAYLOAD, POSITION) else tuple(shape.hashed)


def in_order(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return computed fields so that each follows those that it needs; others count as there.

    Raises:
        ValueError: Fields need each other; the message shows the circle.
    """
    done: list[str] = []
    way: list[str] = []

    def visit(name: str) -> None:
        if name in way:
            raise ValueError(" -> ".join([*way[way.index(name) :], name]))
        if name in done:
            return
        way.append(name)
        for needed in needs[name]:
            if needed in needs:
                visit(needed)
        way.pop()
        done.append(name)

    for name in needs:
        visit(name)
    return done


def all_needs(needs: Mapping[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    """Return what each computed field needs in the end, fields on the way too."""
    found: dict[str, frozenset[str]] = {}
    for name in in_order(needs):
        found[name] = frozenset(needs[name]).union(*(found.get(one, ()) for one in needs[name]))
    return found
