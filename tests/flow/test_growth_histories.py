"""Random histories of a contract, by processes of every version: lake and warehouse hold what an oracle does."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from conftest import Stack
from growing import CHANGES, CURSOR, DAY, Change, rows, table
from headrace.config.settings import Settings
from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, Table
from headrace.core.errors import Conflict, Retriable
from headrace.flow.publish import publish, replace_days
from headrace.lake.delta import DeltaLakeTable
from headrace.warehouse.clickhouse import ClickHouse

_EVERY = {"id", "day", *ORIGIN_SCHEMA}
_NUMBERS = itertools.count()


def named(values: Mapping[str, Any], at: int) -> dict[str, Any]:
    """Values by column, with names of their own for each change of a history."""
    return {f"{'abc'[at]}_{name}": value for name, value in values.items() if name not in _EVERY}


def versions(changes: Sequence[Change], name: str) -> list[Table]:
    """The table before the first change, and after each of them."""
    found = []
    for done in range(len(changes) + 1):
        parts = [(change.after if done > n else change.before, n) for n, change in enumerate(changes)]
        made = table(
            {column: dtype for one, n in parts for column, dtype in named(one.schema, n).items()},
            done + 1,
            fills={column: value for one, n in parts for column, value in named(one.fills, n).items()},
            renamed={
                column: tuple(named(dict.fromkeys(old), n))
                for one, n in parts
                for column, old in named(one.renamed, n).items()
            },
            required=frozenset(
                column for one, n in parts for column in named(dict.fromkeys({*one.schema} - one.nullable), n)
            ),
            retired=frozenset(column for one, n in parts for column in named(dict.fromkeys(one.retired), n)),
        )
        found.append(replace(made, name=name, nested=frozenset(made.schema)))
    return found


def sent(changes: Sequence[Change], version: int) -> dict[str, Any]:
    """The values of a row of a version."""
    return {
        k: v
        for n, change in enumerate(changes)
        for k, v in named(change.new if version > n else change.old, n).items()
    }


def read(changes: Sequence[Change], version: int) -> dict[str, Any]:
    """The same row as the newest version reads it."""
    return {
        k: v
        for n, change in enumerate(changes)
        for k, v in named(change.read[1 if version > n else 0], n).items()
    }


class Process:
    """A process of one version: it opens, may be overtaken, lands, erases and publishes."""

    def __init__(self, root: str, of: Table, config: Settings) -> None:
        self.lake, self.warehouse = DeltaLakeTable(root, of), ClickHouse(config)
        self.snapshot = self.lake.open()

    def open(self) -> None:
        self.snapshot = self.lake.open()

    def land(self, values: Mapping[str, Any], batch: str) -> None:
        """Land the row that follows; start over as long as others were first."""
        for _ in range(5):
            try:
                if self.snapshot.behind:
                    self.snapshot.grow()
                start = self.snapshot.position([CURSOR]).get(CURSOR, 0)
                staged = self.lake.stage()
                staged.add(rows(self.lake.table, [{**values, "_batch_id": batch}], start))
                self.snapshot.append(staged, {CURSOR: start + 1}, batch)
                return
            except Conflict:
                self.open()
        raise AssertionError("a process does not get to land")

    def held(self, database: str, names: Sequence[str]) -> list[dict[str, Any]]:
        columns = ", ".join(["_offset", *names])
        found = self.warehouse.query(
            f"SELECT {columns} FROM {database}.{self.lake.table.name} ORDER BY _offset"
        )
        return [dict(zip(["_offset", *names], row, strict=True)) for row in found]


@pytest.fixture(scope="module")
def config(stack: Stack) -> Settings:
    """A raw database that all histories share; each has a table of its own in it."""
    return stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})


STEP = st.tuples(
    st.sampled_from(["land", "land", "publish", "publish", "open", "erase", "compact", "replace"]),
    st.integers(0, 2),
)


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example is worth seconds: none is shrunk
)
@given(
    changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=2),
    steps=st.lists(STEP, min_size=3, max_size=12),
)
def test_whoever_lands_and_publishes_both_hold_every_row_once_as_the_newest_reads_it(
    changes: list[Change],
    steps: list[tuple[str, int]],
    config: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    note(f"{[change.name for change in changes]}, {steps}")
    root = str(tmp_path_factory.mktemp("lake"))
    made = [Process(root, one, config) for one in versions(changes, f"things_{next(_NUMBERS)}")]
    newest, expected, offset = made[-1], dict[int, dict[str, Any]](), 0
    for step, which in (*steps, ("publish", len(changes))):
        version = min(which, len(changes))
        process = made[version]
        if step == "open":
            process.open()
        elif step == "land":
            process.land(sent(changes, version), f"b-{offset}")
            expected[offset] = read(changes, version)
            offset += 1
        elif step == "erase" and expected:
            gone = min(expected)
            key = rows(made[0].lake.table, [sent(changes, 0)], gone).select(ORIGIN_KEY)
            assert process.lake.erase(key).rows == 1
            del expected[gone]
        elif step == "compact":
            process.lake.newest().optimize.compact()
        elif step in ("publish", "replace"):
            with suppress(
                *[Retriable] * (version < len(changes))
            ):  # an older one may have to wait for a newer
                publish(process.lake, process.warehouse)
                if step == "replace":
                    replace_days(process.lake, process.warehouse, [DAY])
    names = [*read(changes, 0)]
    wanted = [{"_offset": at, **row} for at, row in sorted(expected.items())]
    assert newest.held(config.raw_database, names) == wanted
    dtypes = {
        name: dtype for name, dtype in newest.lake.shape().schema.items() if name in ("_offset", *names)
    }
    found = newest.lake.scan().select("_offset", *names).cast(dtypes).sort("_offset").collect()  # type: ignore[arg-type]
    assert found.to_dicts() == wanted
    for process in reversed(made):
        assert publish(process.lake, process.warehouse).rows == 0
        replace_days(process.lake, process.warehouse, [DAY])
        assert newest.held(config.raw_database, names) == wanted
        process.warehouse.close()
