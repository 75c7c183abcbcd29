"""Every type is measured on records that land."""

from __future__ import annotations

from headrace.bench.types import type_costs


def test_each_type_has_a_cost() -> None:
    found = type_costs(records=40, repetitions=1)
    assert found[0].name == "text of 16 characters"
    assert {"Boolean", "UInt64 beyond 10^18", "Decimal(38, 18)", "Struct of 3", "map of 3 Float64"} <= {
        one.name for one in found
    }
    assert all(one.check >= 0 and one.encode >= 0 and one.size > 0 for one in found)
