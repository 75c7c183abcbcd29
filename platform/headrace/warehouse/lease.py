"""The lease on changing a raw table, with a fence where the change is made.

A holder changes the table through a **door**: a table of the engine ``Alias`` in front of it, with a name that is
never used again. ClickHouse passes what goes through a door on to the raw table, with its deduplication tokens, its
views and its partitions; and refuses what comes after the door is gone. So one who was frozen and taken over cannot do
harm, whatever it sends when it goes on: the server decides at the statement itself, and no clock is asked.

Nobody goes ahead unless it sees no other door after it has made its own, so at most one does. Whoever finds another
door waits until it is gone. A holder that shows no sign of life is taken over: its door is renamed, which fences it,
and whoever comes next waits for the statements that were under way through it. Nobody goes ahead while one is.

Who has to wait puts up a **wish**, so that a holder that comes back again and again lets it in first. A wish guards
nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from headrace.core.errors import Busy, HeadraceError, Retriable
from headrace.warehouse import ddl
from headrace.warehouse.lock import BEAT_SECONDS, STALE_SECONDS, machine, process_is_gone
from headrace.warehouse.server import TABLE_EXISTS, UNKNOWN_TABLE, Refused, Server

log = logging.getLogger(__name__)

DOOR, DEAD, WISH = "_lease", "_lease_lost", "_lease_wish"
#: Signs of life of holders that take long.
BEATS = "_lease_beats"
#: ClickHouse in which the engine ``Alias`` is no experiment any more: github.com/ClickHouse/ClickHouse/pull/103488.
LEASES_SINCE = (26, 5)
#: Server codes of a ClickHouse without the engine ``Alias``, or with it as an experiment.
_UNKNOWN_ENGINE, _EXPERIMENTAL = 56, 344
#: Shortest and longest pause between two looks, s.
_PAUSES = (0.02, 0.2)
#: How long one who has to wait goes first, s; it may be dead.
_COURTESY_SECONDS = 1.0
_TELL_AFTER_SECONDS, _TELL_AGAIN_SECONDS = 3.0, 60.0
_MAKE_BEATS = (
    "CREATE TABLE IF NOT EXISTS {name} (token String, beat_at DateTime64(3) DEFAULT now64(3))"
    " ENGINE = Memory SETTINGS min_rows_to_keep = 100, max_rows_to_keep = 1000"
)


class NoDoors(Exception):
    """This server has no tables that stand for others."""


class LeaseLost(Retriable):
    """Another process has taken over a raw table; nothing that this one sends changes it any more."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A door, a lost door or a wish, as its name says.

    Attributes:
        kind: ``DOOR``, ``DEAD`` or ``WISH``.
        table: The raw table.
        token: Made for this mark alone.
        pid: Process id of its owner.
        machine: Boot and process namespace to which the pid belongs, hashed; empty if unknown.
        host: Machine of its owner, for people.
    """

    kind: str
    table: str
    token: str
    pid: int
    machine: str
    host: str

    @classmethod
    def new(cls, kind: str, table: str) -> Mark:
        """Make a mark of this process."""
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60]
        return cls(kind, table, uuid.uuid4().hex, os.getpid(), _machine(), host)

    @classmethod
    def read(cls, name: str) -> Mark | None:
        """Read a name; None if it is no mark's."""
        parts = name.split("~")
        if len(parts) != 6 or parts[0] not in (DOOR, DEAD, WISH) or not parts[3].isdigit():
            return None
        kind, table, token, pid, on, host = parts
        return cls(kind, table, token, int(pid), on, host)

    def name(self, kind: str = "") -> str:
        """Name the table that stands for the mark, or for what becomes of it."""
        return "~".join((kind or self.kind, self.table, self.token, str(self.pid), self.machine, self.host))

    @property
    def is_gone(self) -> bool:
        """Whether the owner has certainly ended; only its own machine can tell."""
        return bool(self.machine) and self.machine == _machine() and process_is_gone(self.pid)

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def _machine() -> str:
    return hashlib.sha256(found.encode()).hexdigest()[:12] if (found := machine()) else ""


@dataclass(slots=True)
class _Watch:
    """What one who waits has seen of the others, by its own clock alone.

    Attributes:
        seen: For each token the last sign of life, and when it was new.
    """

    seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def silence(self, token: str, beat: str) -> float:
        """Note a look; return for how long there has been no sign of life, s."""
        now = time.monotonic()
        last = self.seen.get(token)
        if last is None or last[0] != beat:
            last = self.seen[token] = (beat, now)
        return now - last[1]


class Leases:
    """The leases of one process on the raw tables of a database. For one thread.

    Args:
        server: Where they are.
        database: The raw database; must exist.
        max_seconds: Longest wait for a lease.
        stale_seconds: Silence after which a holder is taken over.
        beat_seconds: Pause between two signs of life.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        *,
        max_seconds: float,
        stale_seconds: float = STALE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._server, self._database = server, database
        self._max, self._stale, self._beat = max_seconds, stale_seconds, beat_seconds
        self._beats = self._quoted(BEATS)
        #: Tokens of marks of this process that are nobody's any more, where they could not be removed.
        self._left: set[str] = set()

    @contextmanager
    def held(self, table: str) -> Iterator[str]:
        """Hold the lease on a raw table, and yield the name of the door to it.

        Raises:
            Busy: Another process has held it for longer than ``max_seconds``.
            NoDoors: This server has none.
            Retriable: The server is away.
        """
        door, failures = self._opened(table), self._server.failures
        ended = threading.Event()
        threading.Thread(target=self._show_life, args=(door, ended), name="lease", daemon=True).start()
        try:
            yield door.name()
        except BaseException:
            ended.set()
            self._leave(door)
            raise
        ended.set()
        # one that failed and was sent again may still be under way
        self._leave(door) if self._server.failures != failures else self._close(door)

    @contextmanager
    def through(self, door: str, what: str) -> Iterator[None]:
        """Say that the lease is lost where a statement finds its door gone.

        Raises:
            LeaseLost: It is.
        """
        try:
            yield
        except Refused as error:
            if error.code != UNKNOWN_TABLE or door not in str(error):
                raise
            raise LeaseLost(
                f"publishing {what} stops: another process has taken over, because this one showed no sign of life;"
                " the next attempt goes on from what is recorded"
            ) from error

    def _quoted(self, name: str) -> str:
        return f"{ddl.quoted(self._database)}.{ddl.quoted(name)}"

    def _opened(self, table: str) -> Mark:
        """Make the one door to a table."""
        wish: Mark | None = None
        began = time.monotonic()
        while True:
            door = self._made(Mark.new(DOOR, table))
            marks = [one for one in self._marks(table) if one.token != door.token]
            in_the_way = [one for one in marks if one.kind != WISH]
            first = [] if wish else [one for one in marks if one.kind == WISH]
            if not in_the_way and not first:
                self._left.discard(door.token)
                if wish:
                    self._close(wish)
                return door
            self._close(door)
            if in_the_way:
                wish = wish or self._made(Mark.new(WISH, table))
                self._wait(table, began, wish)
            else:
                self._let_in(table, {one.token for one in first})

    def _made(self, mark: Mark) -> Mark:
        """Make the table of a mark, once: a name is never made twice, not even after an error."""
        target = f"{ddl.literal(self._database)}, {ddl.literal(mark.table)}"
        self._left.add(mark.token)  # until it is known to be there, and to be the only one
        try:
            self._server.once(f"CREATE TABLE {self._quoted(mark.name())} ENGINE = Alias({target})")
        except Refused as error:
            if error.code in (_UNKNOWN_ENGINE, _EXPERIMENTAL):
                raise NoDoors(str(error)) from error
            raise
        return mark

    def _marks(self, table: str) -> list[Mark]:
        rows = self._server.query(
            "SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String})",
            database=self._database,
            prefix=DOOR,
        )
        found = [Mark.read(str(name)) for (name,) in rows]
        return [one for one in found if one is not None and one.table == table]

    def _wait(self, table: str, began: float, wish: Mark) -> None:
        """Wait until nobody holds the lease, and no statement of one that has lost it is under way.

        Raises:
            Busy: That took too long.
        """
        watch, tell_at = _Watch(), time.monotonic() + _TELL_AFTER_SECONDS
        while others := [one for one in self._marks(table) if one.kind != WISH]:
            beats = self._last_beats()
            for one in others:
                if one.kind == DEAD:
                    self._bury(one)
                elif (
                    one.token in self._left
                    or one.is_gone
                    or watch.silence(one.token, beats.get(one.token, "")) > self._stale
                ):
                    self._take_over(one)
            now = time.monotonic()
            if now - began > self._max:
                with suppress(HeadraceError):
                    self._close(wish)
                raise Busy(self._in_vain(table, others[0], now - began))
            if now >= tell_at:
                tell_at = now + _TELL_AGAIN_SECONDS
                log.warning("publishing %s waits for %s", table, others[0])
            _pause()

    def _in_vain(self, table: str, other: Mark, seconds: float) -> str:
        if other.kind == DEAD:
            why = f"a statement that {other} sent before it was lost is still under way in the server; end that process"
        else:
            why = f"{other} holds it and shows that it lives: try again later, or raise HEADRACE_LOCK_MAX_SECONDS"
        return f"publishing {table} waits for its lease; given up after {seconds:.0f} s: {why}"

    def _let_in(self, table: str, wishes: Collection[str]) -> None:
        """Let those go first who wait already, for a moment; wishes that nobody takes up are removed."""
        until = time.monotonic() + _COURTESY_SECONDS
        while left := [one for one in self._marks(table) if one.kind == WISH and one.token in wishes]:
            if time.monotonic() > until:
                for one in left:
                    self._close(one)
                return
            _pause()

    def _last_beats(self) -> dict[str, str]:
        try:
            rows = self._server.query(
                f"SELECT token, toString(max(beat_at)) FROM {self._beats} GROUP BY token"
            )
        except Refused as error:
            if error.code != UNKNOWN_TABLE:
                raise
            return {}
        return {str(token): str(beat) for token, beat in rows}

    def _show_life(self, door: Mark, ended: threading.Event) -> None:
        made = False
        while not ended.wait(self._beat):
            with suppress(HeadraceError):  # if the failure lasts, the holder's next statement meets it too
                if not made:
                    self._server.once(_MAKE_BEATS.format(name=self._beats))
                    made = True
                self._server.append(self._database, BEATS, {"token": door.token})

    def _take_over(self, one: Mark) -> None:
        """Rename a holder's door, so that nothing more goes through it; two may see the same one."""
        log.warning("the lease on %s is taken over from %s", one.table, one)
        try:
            self._server.command(f"RENAME TABLE {self._quoted(one.name())} TO {self._quoted(one.name(DEAD))}")
        except Refused as error:
            if error.code not in (TABLE_EXISTS, UNKNOWN_TABLE):
                raise
        self._left.discard(one.token)

    def _bury(self, dead: Mark) -> None:
        """Remove a lost door once nothing is under way through it."""
        if not self._under_way(dead):
            self._drop(dead.name(DEAD))

    def _under_way(self, door: Mark) -> bool:
        """Tell whether the server is at a statement through a door; one that comes later is refused."""
        [(count,)] = self._server.query(
            "SELECT count() FROM system.processes WHERE position(query, {token:String}) > 0"
            " AND position(query, 'system.processes') = 0",
            token=door.token,
        )
        return bool(count)

    def _leave(self, door: Mark) -> None:
        """Close a door after something failed: it stays, as a lease, while a statement may be under way."""
        self._left.add(door.token)
        with suppress(HeadraceError):
            if not self._under_way(door):
                self._close(door)

    def _close(self, mark: Mark) -> None:
        self._left.add(mark.token)
        try:
            self._drop(mark.name())
        except HeadraceError as error:
            log.debug("%s is left: %s", mark.name(), error)
        else:
            self._left.discard(mark.token)

    def _drop(self, name: str) -> None:
        self._server.command(f"DROP TABLE IF EXISTS {self._quoted(name)} SYNC")


def _pause() -> None:
    time.sleep(random.uniform(*_PAUSES))
