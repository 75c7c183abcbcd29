"""Work out what a raw table lacks of its contract, as statements.

The difference between a ``Table`` and what ClickHouse has becomes a migration: columns that are new, wider types, null
where it is allowed now, other names. Every change goes one way (see ``wider``), and what is there and is not asked for
stays. A process with an older contract therefore finds nothing to do in a table that has grown.

A column that was renamed keeps taking values under its earlier names, as ``EPHEMERAL`` columns, which store nothing:
an insert of a process that knows the old name alone fills the new one. Where the earlier column has to stay, because
somebody reads it, it gets the values of the new one (``earlier``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.core.batch import Table
from headrace.warehouse import ddl
from headrace.warehouse.ddl import ColumnShape
from headrace.warehouse.wider import bare, narrows, nullable, only_encoded, wider

#: Names what reads a column of a table: returns names of views and of other tables.
Readers = Callable[[str, str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Growth:
    """What a raw table lacks of its contract.

    Attributes:
        table: Name of the table.
        version: Version of the contract.
        statements: What would be run, in this order; each may be run again. ``{{raw}}`` stands for the database.
        notes: What a person may want to know about it, one line each.
        refused: What cannot be done by itself, one line each with the next step; nothing is run then.
    """

    table: str
    version: int
    statements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.statements or self.refused)

    def __add__(self, other: Growth) -> Growth:
        """Join what two tables of the same rows lack; what is the same counts once."""
        joined = (
            tuple(dict.fromkeys((*one, *more)))
            for one, more in (
                (self.statements, other.statements),
                (self.notes, other.notes),
                (self.refused, other.refused),
            )
        )
        return Growth(self.table, self.version, *joined)

    def named(self, database: str) -> Growth:
        """Return it with the quoted name of the raw database in place of ``{{raw}}``."""
        lines = (tuple(line.replace("{{raw}}", ddl.quoted(database)) for line in said)
                 for said in (self.statements, self.notes, self.refused))  # fmt: skip
        return Growth(self.table, self.version, *lines)

    @property
    def text(self) -> str:
        """The migration: why it is there, and its statements."""
        head = [
            f"Generated from contract version {self.version}: what table {self.table} lacks of it.",
            *self.notes,
        ]
        said = "".join(f"-- {' '.join(line.replace('{{', '{ {').split())}\n" for line in head)
        return said + "\n" + ";\n\n".join(self.statements) + ";\n"


def created(table: Table, ttl_days: int = 0) -> Growth:
    """Return the growth of a table that does not exist."""
    statement = ddl.create_table("raw", table, ttl_days).replace("`raw`.", "{{raw}}.", 1)
    return Growth(table.name, table.version, (statement,))


def growth(
    table: Table,
    columns: Mapping[str, ColumnShape],
    *,
    before: int = 1,
    readers: Readers = lambda table, column: (),
    together: bool = True,
) -> Growth:
    """Compare a table with its contract.

    Args:
        table: The table as the contract has it.
        columns: Columns that are there.
        before: Version of the contract to which the table has grown already.
        readers: Names what reads a column; asked for columns that were renamed.
        together: Whether a column can be renamed for all who read and write at once, as on one server.
    """
    return _Comparison(table, dict(columns), before, readers, together).result()


class _Comparison:
    """One comparison of a table with its contract. ``columns`` follows what the statements do."""

    def __init__(
        self, table: Table, columns: dict[str, ColumnShape], before: int, readers: Readers, together: bool
    ) -> None:
        self._table, self._columns, self._before = table, columns, before
        self._readers, self._together = readers, together
        self._name = f"{{{{raw}}}}.{ddl.quoted(table.name)}"
        self._statements: list[str] = []
        self._notes: list[str] = []
        self._refused: list[str] = []

    def result(self) -> Growth:
        for name in self._table.schema:
            there = self._columns.get(name)
            if there is None:
                self._add(name)
            elif there.is_stored:
                self._modify(name, there)
        for name, earlier in ddl.earlier_names(self._table):
            self._accept(name, earlier)
        for name in self._table.renamed:
            self._take_over(name)
            self._keep_up(name)
        if self._table.key:
            self._hash_key()
        return Growth(
            self._table.name,
            self._table.version,
            tuple(self._statements),
            tuple(self._notes),
            tuple(self._refused),
        )

    def _alter(self, change: str) -> None:
        self._statements.append(f"ALTER TABLE {self._name} {change}")

    def _add(self, name: str) -> None:
        stored = [one for one in self._table.renamed.get(name, ()) if self._is_stored(one)]
        if stored:
            why = self._why_not_renamed(stored)
            if not why:
                self._rename(stored[0], name)
                return
            self._notes.append(
                f"{self._table.name}.{name} comes beside {stored[0]}, and both have the same values from then on: {why}"
            )
        kind, _ = ddl.column_type(self._table, name)
        missing = [one for one in self._table.renamed.get(name, ()) if one not in self._columns]
        for earlier in missing:
            self._accept(name, earlier)
        self._alter(f"ADD COLUMN IF NOT EXISTS {ddl.column(self._table, name)}{self._place(name)}")
        self._columns[name] = ColumnShape(kind, "DEFAULT", ddl.default(self._table, name))

    def _is_stored(self, name: str) -> bool:
        return name not in self._table.schema and name in self._columns and self._columns[name].is_stored

    def _why_not_renamed(self, stored: Sequence[str]) -> str:
        old = stored[0]
        if len(stored) > 1:
            return f"so do {', '.join(stored[1:])}, of which old rows have their values too"
        if self._columns[old].in_key:
            return f"{old} is in the sorting key or the partition"
        if not self._together:
            return "on a cluster no rename is one step"
        if readers := list(self._readers(self._table.name, old)):
            return f"{', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} {old}"
        return ""

    def _rename(self, old: str, name: str) -> None:
        self._alter(f"RENAME COLUMN IF EXISTS {ddl.quoted(old)} TO {ddl.quoted(name)}")
        self._columns[name] = self._columns.pop(old)
        for earlier in self._table.renamed[name]:
            self._accept(name, earlier)
        self._modify(name, self._columns[name])

    def _accept(self, name: str, earlier: str) -> None:
        """Take values under an earlier name."""
        if earlier in self._columns or earlier in self._table.schema:
            return
        self._alter(f"ADD COLUMN IF NOT EXISTS {ddl.earlier_name(self._table, name, earlier)}")
        self._columns[earlier] = ColumnShape("", "EPHEMERAL")

    def _take_over(self, name: str) -> None:
        """See to it that a column takes the values that come under its earlier names."""
        there = self._columns.get(name)
        if there is None or not there.is_stored:
            return
        words = set(re.findall(r"\w+", there.expression))
        if not set(self._table.renamed[name]) <= words:
            self._alter(
                f"MODIFY COLUMN IF EXISTS {ddl.quoted(name)} {there.type}{ddl.default(self._table, name)}"
            )

    def _hash_key(self) -> None:
        """See to it that the hash of the key is stored, under whichever name the key has."""
        there = self._columns.get(ddl.KEY_HASH)
        if there is None:
            self._alter(f"ADD COLUMN IF NOT EXISTS {ddl.key_hash(self._table)}")
        elif self._is_older(re.findall(r"\w+", there.expression)):
            self._alter(f"MODIFY COLUMN IF EXISTS {ddl.key_hash(self._table)}")

    def _is_older(self, words: Sequence[str]) -> bool:
        """Tell whether an expression names the key as it was called before, and not as it is now."""
        key = self._table.key
        return key not in words and any(one in words for one in self._table.renamed.get(key, ()))

    def _place(self, name: str) -> str:
        names = list(self._table.schema)
        known = [one for one in names[: names.index(name)] if one in self._columns]
        return f" AFTER {ddl.quoted(known[-1])}" if known else ""

    def _modify(self, name: str, there: ColumnShape) -> None:
        wanted, codec = ddl.column_type(self._table, name)
        found = wider(there.type, wanted)
        if found is None or narrows(there.type, wanted):
            # one that is older than the table goes on with what a newer one has made of it
            if self._table.version > self._before or (found is None and self._table.version == self._before):
                self._refuse_type(name, there.type, wanted, "another" if found is None else "a narrower")
            return
        changed = found != there.type
        if changed and there.in_key:
            if not only_encoded(found, there.type):
                self._refuse_key(name, there.type, found)
            return
        clause = ddl.default(self._table, name) if name in self._table.fills and not there.kind else ""
        if not changed and not clause:
            return
        coded = f" CODEC({codec})" if bare(there.type) != bare(found) == bare(wanted) else ""
        self._alter(f"MODIFY COLUMN IF EXISTS {ddl.quoted(name)} {found}{clause}{coded}")
        kind = "DEFAULT" if clause else there.kind
        self._columns[name] = replace(there, type=found, kind=kind, expression=there.expression or clause)

    def _keep_up(self, name: str) -> None:
        """See to it that columns with earlier names, where they stay, take the values of the newest one, and null."""
        now = self._columns.get(name)
        if now is None or not now.is_stored:
            return
        for earlier in self._table.renamed[name]:
            there = self._columns.get(earlier)
            if there is None or not self._is_stored(earlier) or there.in_key:
                continue
            found = nullable(wider(there.type, now.type) or there.type)
            if found != there.type:
                self._alter(f"MODIFY COLUMN IF EXISTS {ddl.quoted(earlier)} {found}")
                self._columns[earlier] = replace(there, type=found)

    def _refuse_type(self, name: str, there: str, wanted: str, which: str) -> None:
        self._refused.append(
            f"column {name!r} of raw table {self._table.name} is {there}, version {self._table.version} of its contract"
            f" wants {which} type, {wanted}, which does not come by itself: give the contract a new column for it, or"
            f" write a migration with ALTER TABLE {self._name} MODIFY COLUMN {ddl.quoted(name)} {wanted}"
        )

    def _refuse_key(self, name: str, there: str, found: str) -> None:
        aside = ddl.quoted(f"{self._table.name}_before")
        self._refused.append(
            f"column {name!r} of raw table {self._table.name} is {there}, version {self._table.version} of its contract"
            f" wants {found}, and ClickHouse changes no type in a sorting key or partition: keep the type, or make the"
            f" table anew from the lake (RENAME TABLE {self._name} TO {{{{raw}}}}.{aside}, then 'headrace backfill')"
        )


def too_narrow(rows: Table, columns: Mapping[str, ColumnShape]) -> dict[str, tuple[str, str]]:
    """Return the stored columns that cannot hold every value of rows, each with its type and that of the rows.

    The server would not refuse such values: it wraps integers, and stores the type's default for null.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in rows.schema:
        there = columns.get(name)
        if there is None or not there.is_stored:
            continue
        wanted, _ = ddl.column_type(rows, name)
        needed = wider(there.type, wanted)
        if needed is not None and not only_encoded(needed, there.type):
            found[name] = there.type, wanted
    return found


def readers_of(database: str, views: Sequence[tuple[str, str]]) -> Readers:
    """Return who reads columns, judged by the words in the texts and columns of views.

    Args:
        database: The raw database.
        views: Name of each view, with its text and its columns.
    """
    words = {name: set(re.findall(r"\w+", text)) for name, text in views}
    return lambda table, column: sorted(
        name for name, said in words.items() if {database, table, column} <= said
    )
