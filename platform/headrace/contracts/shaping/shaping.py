"""Hold what a contract declares about shaping, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from headrace.contracts.shaping.declared import Shape
from headrace.contracts.shaping.order import all_needs, in_order, needs_of
from headrace.contracts.shaping.plan import Plan, plan_of

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract

Transform = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Shaping:
    """The shaping of a contract.

    Attributes:
        plan: What is read from a message.
        read: Columns that are read, in the model's order.
        constants: Columns with one value.
        computed: Derived fields and keys, each after what it needs.
        needs: What each of them is made from in the end.
        transform: The contract's own function.
    """

    plan: Plan
    read: tuple[Column, ...]
    constants: tuple[tuple[Column, Shape], ...]
    computed: tuple[tuple[Column, Shape], ...]
    needs: Mapping[str, frozenset[str]]
    transform: Transform | None


def shaping_of(contract: Contract) -> Shaping | None:
    """Work out the shaping of a contract; None if it declares none."""
    from headrace.contracts.base import wire_field

    if contract.transform is None and all(column.shape is None for column in contract.fields):
        return None
    shapes = [(column, column.shape or Shape()) for column in contract.fields]
    read = [(column, wire_field(column), shape) for column, shape in shapes if not shape.computed]
    made = {c.name: (c, s) for c, s in shapes if s.computed and s.constant is None}
    needs = {name: needs_of(shape) for name, (_, shape) in made.items()}
    return Shaping(
        plan=plan_of(read).marking(contract.marked),
        read=tuple(column for column, _, _ in read),
        constants=tuple((c, s) for c, s in shapes if s.constant is not None),
        computed=tuple(made[name] for name in in_order(needs)),
        needs=all_needs(needs),
        transform=contract.transform,
    )
