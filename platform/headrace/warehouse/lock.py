"""Lock between machines, with a table in ClickHouse itself: for migrations, and for erasures.

``CREATE TABLE`` without ``IF NOT EXISTS`` is atomic: of two processes that start at once, the server refuses
one. The table's comment names the owner. The owner inserts a heartbeat row every few seconds, with the server's
clock. After ``stale_seconds`` without a row the owner counts as dead, and the next process takes over. On the
same machine the next process sees at once that the owner's process has ended. So a crash costs seconds at most,
nobody has to clean up, and a migration may run for hours.

To take over, a process renames the dead lock to a name made of the dead owner's token. If two processes see the
same dead lock, the second finds that name taken. So it cannot mistake the first one's new lock for the dead
one.
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
#: Keeps erasures apart.
ERASURES = "_erasures_lock"
BEAT_SECONDS = 3.0
#: Longer than a paused process or a short network failure lasts.
STALE_SECONDS = 20.0
#: Longer than it takes for a dead owner to be noticed.
WAIT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds the lock.

    Attributes:
        token: Secret by which the owner recognises its own lock.
        host: Machine of the owner.
        pid: Process id on that machine.
        silent_seconds: Seconds since its last heartbeat, by the server's clock.
        machine: Boot id and process namespace to which the pid belongs; empty if unknown.
    """

    token: str
    host: str
    pid: int
    silent_seconds: float = 0.0
    machine: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether the owner's process has certainly ended; only its own machine can tell."""
        return bool(self.machine) and self.machine == machine() and process_is_gone(self.pid)

    def __str__(self) -> str:
        return f"{self.host}, pid {self.pid}, last sign of life {self.silent_seconds:.0f} s ago"


def process_is_gone(pid: int) -> bool:
    """Tell whether a process of this machine has certainly ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def machine() -> str:
    """Identify boot and process namespace; empty on systems other than Linux.

    Containers of one host may share its name, but not its processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


class MigrationLock:
    """A lock of one raw database.

    Args:
        server: Where the lock is.
        database: The raw database; must exist.
        stale_seconds: Silence after which an owner counts as dead.
        wait_seconds: How long to wait for another owner.
        beat_seconds: Pause between two heartbeats.
        table: Its table.
        unlock: What a person may do where the owner is gone; empty for nothing.

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
        table: str = TABLE,
        unlock: str = ", or, where that process is gone, run 'headrace migrate unlock'",
    ) -> None:
        self._server, self._database, self._table, self._unlock = server, database, table, unlock
        self._what = table.strip("_").removesuffix("_lock")
        self._name = f"{ddl.quoted(database)}.{ddl.quoted(table)}"
        self._stale, self._wait, self._beat = stale_seconds, wait_seconds, beat_seconds
        self.owner = Owner(uuid.uuid4().hex, socket.gethostname(), os.getpid(), machine=machine())

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lock and yield a check that raises once another process has taken it.

        Raises:
            Retriable: Another process keeps the lock for longer than ``wait_seconds``.
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
            # a lock that cannot be removed now falls silent, and another process takes it over
            with suppress(HeadraceError):
                self._release()

    def holder(self) -> Owner | None:
        """Return the owner; None if nobody holds the lock."""
        found = self._server.query(
            """
            SELECT comment, dateDiff('millisecond', metadata_modification_time, now64(3)) / 1000
            FROM system.tables WHERE database = {database:String} AND name = {name:String}
            """,
            database=self._database,
            name=self._table,
        )
        if not found:
            return None
        [(comment, age)] = found
        said = json.loads(comment)
        silent = min(float(age), self._silence())
        return Owner(said["token"], said["host"], said["pid"], silent, said.get("machine", ""))

    def beats(self, owner: Owner) -> bool:
        """Tell whether an owner's last heartbeat is recent, within three beats, so that it must be alive."""
        return owner.silent_seconds < 3 * self._beat

    def _silence(self) -> float:
        """Return the seconds since the last heartbeat; infinity before the first."""
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
                f"the {self._what} of {self._database} are locked by {self.holder() or 'others, in turns'};"
                f" wait for it{self._unlock}"
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
            # a repeated call that succeeded the first time meets its own table
            holder = self.holder()
            return holder is not None and holder.token == self.owner.token
        return True

    def _aside(self, dead: Owner) -> str:
        return f"{ddl.quoted(self._database)}.{ddl.quoted(f'_{self._what}_dead_lock_{dead.token}')}"

    def _set_aside(self, dead: Owner) -> bool:
        try:
            self._server.command(f"RENAME TABLE {self._name} TO {self._aside(dead)}")
        except Refused as error:
            if error.code not in (TABLE_EXISTS, UNKNOWN_TABLE):
                raise
            return False
        return True

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(self._beat):
            try:
                self._server.append(self._database, self._table, {"token": self.owner.token})
            except HeadraceError:
                continue  # if the failure lasts, the check before the next statement meets it too

    def _still_mine(self) -> None:
        holder = self.holder()
        if holder is None or holder.token != self.owner.token:
            raise Retriable(
                f"this process lost the lock of the {self._what} of {self._database} to {holder or 'nobody'}:"
                " it was silent for too long, or somebody removed it; run it again"
            )

    def _release(self) -> None:
        """Remove the lock, if it is this process's still.

        By way of the name for a lock of this owner that is dead: one who has taken over has used that name already, so
        a process that was frozen after the question does not remove another one's lock.
        """
        holder = self.holder()
        if holder is not None and holder.token == self.owner.token and self._set_aside(holder):
            self._server.command(f"DROP TABLE IF EXISTS {self._aside(holder)} SYNC")
            self._sweep()

    def clear(self) -> None:
        """Remove the lock, whoever holds it, and the remains of dead locks."""
        self._server.command(f"DROP TABLE IF EXISTS {self._name} SYNC")
        self._sweep()

    def _sweep(self) -> None:
        """Remove what is left of locks that were taken over long ago."""
        dead = self._server.query(
            "SELECT name FROM system.tables WHERE database = {database:String}"
            " AND startsWith(name, {prefix:String}) AND metadata_modification_time < now() - INTERVAL 1 HOUR",
            database=self._database,
            prefix=f"_{self._what}_dead_lock_",
        )
        for (name,) in dead:
            self._server.command(f"DROP TABLE IF EXISTS {ddl.quoted(self._database)}.{ddl.quoted(name)} SYNC")
