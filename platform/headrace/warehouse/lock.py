"""A lock in ClickHouse itself, so that it holds between machines.

``CREATE TABLE`` without ``IF NOT EXISTS`` is atomic: one of two starters wins, the other is refused. The comment of
the table names the owner. The owner adds a row every few seconds, with the server's clock; where no row came for
``stale_seconds`` seconds, the owner is dead and the next one takes the lock over; where the owner was a process of the
same machine, the next one sees at once that it is gone. So a crash costs seconds at most, nobody needs to clean up, and
a migration may run for hours.

Taking over renames the dead lock to a name made of its own token: of two that saw the same dead lock, the second
finds that name taken, and cannot take the first one's new lock for the dead one.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_random

from headrace.core.errors import HeadraceError, Retriable
from headrace.warehouse import ddl
from headrace.warehouse.server import TABLE_EXISTS, UNKNOWN_TABLE, Refused, Server

TABLE = "_migrations_lock"
BEAT_SECONDS = 3.0
#: Twelve missed beats: longer than a pause of a process or a network that comes back.
STALE_SECONDS = 20.0
#: Longer than it takes for a dead owner to be noticed.
WAIT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds the lock.

    Attributes:
        token: What the holder alone knows to be its own.
        host: Its machine.
        pid: Its process there.
        silent_seconds: Since its last sign of life, by the server's clock.
        machine: Boot and process namespace in which the pid is its own; empty where that is not known.
    """

    token: str
    host: str
    pid: int
    silent_seconds: float = 0.0
    machine: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether its process has certainly ended, which only its own machine can tell."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"{self.host}, pid {self.pid}, last sign of life {self.silent_seconds:.0f} s ago"


def _machine() -> str:
    """Linux alone says; containers of one host may have its name, but not its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


class MigrationLock:
    """The lock of one raw database.

    Attributes:
        owner: This process, as others see it.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        *,
        stale_seconds: float = STALE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        """Args:
        server: Where the lock is.
        database: The raw database; must exist.
        stale_seconds: Silence after which an owner counts as dead.
        wait_seconds: How long to wait for somebody else.
        beat_seconds: Pause between two signs of life.
        """
        self._server, self._database = server, database
        self._name = f"{ddl.quoted(database)}.{ddl.quoted(TABLE)}"
        self._stale, self._wait, self._beat = stale_seconds, wait_seconds, beat_seconds
        self.owner = Owner(uuid.uuid4().hex, socket.gethostname(), os.getpid(), machine=_machine())

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lock; yields a check that raises once somebody else has taken it.

        Raises:
            Retriable: Somebody else keeps it for longer than ``wait_seconds``.
        """
        self._acquire()
        ended = threading.Event()
        beating = threading.Thread(target=self._beat_until, args=(ended,), name="migration lock", daemon=True)
        beating.start()
        try:
            yield self._still_mine
        finally:
            ended.set()
            beating.join()
            # one that cannot be removed now goes silent, and is taken over
            with suppress(HeadraceError):
                self._release()

    def holder(self) -> Owner | None:
        """Who holds it; None if nobody does."""
        found = self._server.query(
            """
            SELECT comment, dateDiff('millisecond', metadata_modification_time, now64(3)) / 1000
            FROM system.tables WHERE database = {database:String} AND name = {name:String}
            """,
            database=self._database,
            name=TABLE,
        )
        if not found:
            return None
        [(comment, age)] = found
        said = json.loads(comment)
        silent = min(float(age), self._silence())
        return Owner(said["token"], said["host"], said["pid"], silent, said.get("machine", ""))

    def beats(self, owner: Owner) -> bool:
        """Whether an owner gave a sign of life so lately that it must be alive: within three beats."""
        return owner.silent_seconds < 3 * self._beat

    def _silence(self) -> float:
        """Seconds since the last row; infinite before the first."""
        try:
            [(rows, silence)] = self._server.query(
                f"SELECT count(), dateDiff('millisecond', max(beat_at), now64(3)) / 1000 FROM {self._name}"
            )
        except Refused as error:
            if error.code == UNKNOWN_TABLE:
                return float("inf")
            raise
        return float(silence) if rows else float("inf")

    def _acquire(self) -> None:
        try:
            Retrying(
                retry=retry_if_result(lambda got: not got),
                stop=stop_after_delay(self._wait),
                wait=wait_random(0.05, 0.3),
            )(self._tried)
        except RetryError:
            raise Retriable(
                f"the migrations of {self._database} are locked by {self.holder() or 'others, in turns'};"
                " wait for it, or, where that process is gone, run 'headrace migrate unlock'"
            ) from None

    def _tried(self) -> bool:
        if self._created():
            return True
        holder = self.holder()
        if holder is not None and (holder.is_gone or holder.silent_seconds > self._stale):
            self._set_aside(holder)
        return False

    def _created(self) -> bool:
        mine = self.owner
        said = json.dumps({"token": mine.token, "host": mine.host, "pid": mine.pid, "machine": mine.machine})
        try:
            self._server.command(
                f"CREATE TABLE {self._name} (beat_at DateTime64(3) DEFAULT now64(3), token String)"
                f" ENGINE = MergeTree ORDER BY beat_at COMMENT {ddl.literal(said)}"
            )
        except Refused as error:
            if error.code != TABLE_EXISTS:
                raise
            # a call that was made again after it had succeeded meets its own table
            holder = self.holder()
            return holder is not None and holder.token == self.owner.token
        return True

    def _set_aside(self, dead: Owner) -> None:
        aside = f"{ddl.quoted(self._database)}.{ddl.quoted(f'_migrations_dead_lock_{dead.token}')}"
        try:
            self._server.command(f"RENAME TABLE {self._name} TO {aside}")
        except Refused as error:
            if error.code not in (TABLE_EXISTS, UNKNOWN_TABLE):
                raise

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(self._beat):
            try:
                self._server.append(self._database, TABLE, {"token": self.owner.token})
            except HeadraceError:
                continue  # the next beat, or the check before the next statement, meets the same

    def _still_mine(self) -> None:
        holder = self.holder()
        if holder is None or holder.token != self.owner.token:
            raise Retriable(
                f"this process lost the migration lock of {self._database} to {holder or 'nobody'}:"
                " it was silent for too long, or somebody ran 'headrace migrate unlock'"
            )

    def _release(self) -> None:
        holder = self.holder()
        if holder is not None and holder.token == self.owner.token:
            self.clear()

    def clear(self) -> None:
        """Remove the lock, whoever holds it, and what is left of dead ones."""
        dead = self._server.query(
            "SELECT name FROM system.tables WHERE database = {database:String}"
            " AND startsWith(name, '_migrations_dead_lock_')"
            " AND metadata_modification_time < now() - INTERVAL 1 HOUR",
            database=self._database,
        )
        for name in (TABLE, *(name for (name,) in dead)):
            self._server.command(f"DROP TABLE IF EXISTS {ddl.quoted(self._database)}.{ddl.quoted(name)} SYNC")
