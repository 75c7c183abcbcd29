"""Remember who was erased, so that nothing brings their rows back.

A queue may deliver a message again, a topic may be read anew after a restore, a file may land late. So the lake
has a table ``_erasures`` with a keyed hash of each erased id, for all machines. Writers drop the rows of people
on this list, and count them. A change of the list fences the tables of every stream: a commit that was prepared
under the old list is refused, however long its writer slept (docs/adr/0027).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, UTC_MICROS, Table
from headrace.core.errors import Conflict
from headrace.lake import LakeTable

#: Column and field that names a person.
PERSON = "user_id"
MESSAGE = ["_cursor", "_offset", "_message_id"]
#: Table of the erased: a salt, then hashed ids that are suppressed or lifted. The last entry of an id counts.
ERASURES = Table(
    name="_erasures",
    schema=pl.Schema(
        {
            "action": pl.String(),
            "digest": pl.String(),
            "_ingested_at": UTC_MICROS,
            "erased_on": pl.Date(),
            **{name: ORIGIN_SCHEMA[name] for name in (*ORIGIN_KEY, "_batch_id")},
        }
    ),
    partition="erased_on",
    order_by=("_ingested_at",),
    nullable=frozenset({"_message_id"}),
    description="Who was erased, by keyed hash, so that nothing brings their rows back",
)
_SALT, _SUPPRESS, _LIFT = "salt", "suppress", "lift"
_CURSOR = "erasures"
_RACES = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)
#: Errors of decoding: bytes that are no JSON, hold invalid text, or are nested too deeply.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_WORD = re.compile(rb"""[^\s"',;:=&?{}\[\]()<>]+|\w+""")


@dataclass(frozen=True, slots=True)
class Suppressed:
    """The people whose rows must not land.

    Attributes:
        salt: Key of the hash.
        digests: Hashes of their ids.
    """

    salt: bytes
    digests: frozenset[str]

    def digest(self, person: str) -> str:
        """Hash an id with keyed BLAKE2b."""
        return hashlib.blake2b(
            person.encode(errors="surrogatepass"), key=self.salt, digest_size=16
        ).hexdigest()

    def holds(self, person: str) -> bool:
        """Tell whether a person is on the list."""
        return self.digest(person) in self.digests

    def drop(
        self, rejected: pl.DataFrame, good: pl.DataFrame, people: Collection[str] = (PERSON,)
    ) -> tuple[pl.DataFrame, pl.DataFrame, Mapping[str, int]]:
        """Drop the rows of people on the list.

        Args:
            rejected: Rejected rows.
            good: Good rows.
            people: Columns of good rows that name a person; see ``person_columns``.

        Returns:
            The remaining rejected rows, the remaining good rows, and by cursor the messages that left nothing.
        """
        others = self._rejected(rejected), self._good(good, people)
        if others[0].height == rejected.height and others[1].height == good.height:
            return rejected, good, {}
        messages = pl.concat([rejected.select(MESSAGE), good.select(MESSAGE)]).unique()
        left = pl.concat([rows.select(MESSAGE) for rows in others])
        gone = messages.join(left, on=MESSAGE, how="anti", nulls_equal=True)
        return *others, Counter(gone["_cursor"].to_list())

    def _good(self, rows: pl.DataFrame, people: Collection[str]) -> pl.DataFrame:
        for name in people:
            ids = rows[name].drop_nulls().unique().to_list() if name in rows.columns else []
            if theirs := [one for one in ids if self.holds(str(one))]:
                rows = rows.filter(~pl.col(name).is_in(theirs).fill_null(value=False))
        return rows

    def _rejected(self, rows: pl.DataFrame) -> pl.DataFrame:
        keep = [
            not any(self.holds(one) for one in possible_ids(payload or b"", key))
            for payload, key in rows.select("payload", "_key").iter_rows()
        ]
        return rows if all(keep) else rows.filter(pl.Series(keep, dtype=pl.Boolean))


def person_columns(table: Table) -> list[str]:
    """Return the columns of a table that name a person, now or by an earlier name."""
    return [name for name in table.schema if PERSON in (name, *table.renamed.get(name, ()))]


def possible_ids(payload: bytes, key: bytes | None) -> set[str]:
    """Return all ids that a rejected record may name: the texts of its JSON, or its words if it is no JSON."""
    found = {key.decode()} if key and _is_text(key) else set()
    try:
        return found | set(_values(msgspec.json.decode(payload)))
    except NO_JSON:
        pass
    for quoted in _QUOTED.findall(payload):
        with suppress(*NO_JSON):
            found.add(msgspec.json.decode(quoted, type=str))
    return found | {word.decode() for word in _WORD.findall(payload) if _is_text(word)}


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _values(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, name)
    elif isinstance(value, str):
        yield value
    elif name == PERSON:  # a number is an id only in the field that names a person
        yield str(value)


class Erasures:
    """The list of erased people, in the lake.

    Until somebody is erased, the table is not created and is read only once.

    Args:
        table: The table ``ERASURES``.
        keep: How long a person stays on the list; None for ever.
    """

    def __init__(self, table: LakeTable, keep: timedelta | None = None) -> None:
        self._table, self._keep = table, keep
        self._seen: tuple[str, ...] | None = None
        self._found: Suppressed | None = None

    def current(self, marks: tuple[str, ...]) -> Suppressed | None:
        """Return the people on the list; None if there are none.

        Args:
            marks: Marks of the snapshots that the next commit goes through. If they differ from last time, the
                list has changed.
        """
        if marks != self._seen:
            self._found, self._seen = self._look(), marks
        return self._found

    def suppress(self, person: str) -> None:
        """Add a person; for one who is on the list already, the time starts anew."""
        self._append(_SUPPRESS, person)

    def lift(self, person: str) -> bool:
        """Take a person off the list; returns whether they were on it."""
        found = self._look()
        if found is None or not found.holds(person):
            return False
        self._append(_LIFT, person)
        return True

    def prune(self) -> int:
        """Remove expired and lifted entries; returns how many."""
        if self._keep is None or not self._table.exists():
            return 0
        rows = self._rows(self._table.open().version)
        last = pl.col("_offset") == pl.col("_offset").max().over("digest")
        counts = (
            last
            & (pl.col("action") == _SUPPRESS)
            & (pl.col("_ingested_at") >= datetime.now(UTC) - self._keep)
        )
        stale = rows.filter((pl.col("action") != _SALT) & ~counts).select(ORIGIN_KEY)
        done = self._table.erase(stale)
        self._table.forget(done)
        return done.rows

    def _look(self) -> Suppressed | None:
        if not self._table.exists():
            return None
        rows = self._rows(self._table.open().version)
        salts = rows.filter(pl.col("action") == _SALT)["digest"]
        last = rows.filter(pl.col("action") != _SALT).sort("_offset").unique("digest", keep="last")
        on = last.filter(pl.col("action") == _SUPPRESS)
        if self._keep is not None:
            on = on.filter(pl.col("_ingested_at") >= datetime.now(UTC) - self._keep)
        return Suppressed(bytes.fromhex(salts[0]), frozenset(on["digest"])) if on.height else None

    def _rows(self, version: int) -> pl.DataFrame:
        found = [pl.DataFrame(schema=ERASURES.schema)]
        for day in self._table.counts_by_day(version):
            for chunk in self._table.read_day(day, version):
                found += [pl.DataFrame(pl.from_arrow(part)).cast(ERASURES.schema) for part in chunk]  # type: ignore[arg-type]
        return pl.concat(found)

    def _append(self, action: str, person: str) -> None:
        for attempt in _RACES:
            with attempt:
                snapshot, now = self._table.open(), datetime.now(UTC)
                end = snapshot.position([_CURSOR]).get(_CURSOR, 0)
                salts = self._rows(snapshot.version).filter(pl.col("action") == _SALT)["digest"]
                salt = salts[0] if len(salts) else secrets.token_hex(32)
                digest = Suppressed(bytes.fromhex(salt), frozenset()).digest(person)
                new = [(action, digest)] if len(salts) else [(_SALT, salt), (action, digest)]
                rows = pl.DataFrame(
                    [
                        (what, said, now, now.date(), _CURSOR, end + n, None, 0, action)
                        for n, (what, said) in enumerate(new)
                    ],
                    schema=ERASURES.schema,
                    orient="row",
                )
                snapshot.append(rows, {_CURSOR: end + len(new)}, action)
        self._seen = None
