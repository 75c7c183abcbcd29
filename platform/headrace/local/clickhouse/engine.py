"""Run the engine in this process: its directory, connections and sessions, and how queries are stopped.

Settings, the current database and temporary tables belong to one engine connection. A request without a session gets a
connection of its own (about 1 ms). A session keeps its connection, so no client sees another's state.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.core.errors import Fatal
from headrace.local.clickhouse.errors import ClickHouseError
from headrace.local.clickhouse.statement import quote, quote_name

Connection = Any  #: chdb.Connection, which has no types

_SLOT_SECONDS = 120.0  # longest wait of a request for its turn
_KILL_SECONDS = 0.5  # interval at which a query is told to stop


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Session parameters of a request.

    Attributes:
        name: The client's own id; empty for none.
        timeout: Idle time after which the session is dropped, s.
        must_exist: Fail if the session is unknown.
        close: End the session with this request.
        role: Role of its user, with whose sessions alone it shares names.
    """

    name: str = ""
    timeout: float = 60.0
    must_exist: bool = False
    close: bool = False
    role: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells sessions apart."""
        return self.role, self.name


class Session:
    """One client session: its connection, and the settings that request URLs have applied to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.used = time.monotonic()
        self.timeout = 60.0
        self.database: str | None = None
        #: Setting -> (value from the URL, statement that restores what the client had set before).
        self.applied: dict[str, tuple[str, str]] = {}


class Lease:
    """A connection for the time of one request."""

    def __init__(self, connection: Connection, session: Session | None, release: Callable[[], None]) -> None:
        self.connection = connection
        self.session = session
        self._release: list[Callable[[], None]] = [release]
        self._lock = threading.Lock()

    def on_release(self, action: Callable[[], None]) -> None:
        """Run ``action`` when the request is over, before the connection is returned."""
        self._release.append(action)

    def release(self) -> None:
        """Return the connection. Idempotent."""
        with self._lock:
            actions, self._release = self._release, []
        for action in reversed(actions):
            with contextlib.suppress(Exception):  # return the connection even if a clean-up fails
                action()


class Engine:
    """The engine over one data directory, which this process alone owns.

    Args:
        directory: Holds the engine's ``data`` and the owner's lock. Created if missing.
        database: The Atomic database of clients that name none.
        max_queries: Queries that run at once; more wait for their turn.
    """

    def __init__(self, directory: Path, database: str, max_queries: int = 16) -> None:
        self.directory = directory
        self.database = database
        self.version = self.timezone = self.host = ""
        self._data = directory / "data"
        self._slots = threading.Semaphore(max_queries)
        self._pool = ThreadPoolExecutor(max_queries, "query")
        self._sessions: dict[tuple[str, str], Session] = {}
        self._sessions_lock = threading.Lock()
        #: How often somebody was about to stop queries of others.
        self.kills = 0
        self._kills_lock = threading.Lock()
        self._owner: Any = None
        self._keeper: Connection = None
        self._connect: Callable[[str], Connection] | None = None

    def lock(self) -> None:
        """Become the directory's owner. The engine itself would admit a second process and lose data.

        Raises:
            Fatal: Another process owns the directory, or it cannot be written.
        """
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._owner = (self.directory / "owner.lock").open("a+")
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fatal(
                f"another server already uses {self.directory}; stop it or choose another folder with --path"
            ) from None
        except OSError as error:
            raise Fatal(
                f"{self.directory} cannot be written: {error.strerror}; choose another --path"
            ) from None

    def open(self, config: Path) -> None:
        """Start the engine and create the working database if it is missing."""
        from chdb import connect  # takes 0.3 s, so only once this process will serve

        self._connect = connect
        # chdb and chdb-core both bring chdb/__init__.py: whichever was installed last has types, or has none
        self._keeper = connect(f"{self._data}?config-file={config}")  # type: ignore[no-untyped-call]
        self._keeper.query(
            f"CREATE DATABASE IF NOT EXISTS {quote_name(self.database)} ENGINE = Atomic", "Null"
        )
        facts = self._keeper.query("SELECT version(), timezone(), hostName()", "TSV").bytes().decode()
        self.version, self.timezone, self.host = facts.strip().split("\t")

    def close(self) -> None:
        """Stop running queries and close the data directory."""
        with contextlib.suppress(Exception):
            self.kill_all()
        self._pool.shutdown(wait=True)
        with self._sessions_lock:
            for session in self._sessions.values():
                session.connection.close()
            self._sessions.clear()
        self._keeper.close()

    def run(self, task: Callable[[], None]) -> Future[None]:
        """Run ``task`` on the engine's own threads."""
        return self._pool.submit(task)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection for the endpoint's own short statements."""
        connection = self._new_connection()
        try:
            yield connection
        finally:
            connection.close()

    def lease(self, wanted: SessionOptions) -> Lease:
        """Lend a connection for one request: the session's own if the request names one.

        Raises:
            ClickHouseError: The session is unknown (372) or busy (373), or the server is busy (202).
        """
        session = self._session(wanted) if wanted.name else None
        if not self._slots.acquire(timeout=_SLOT_SECONDS):
            if session:
                session.lock.release()
            raise ClickHouseError(202, "Too many simultaneous queries", "TOO_MANY_SIMULTANEOUS_QUERIES")
        if session is None:
            try:
                connection = self._new_connection()
            except BaseException:
                self._slots.release()
                raise

            def give_up() -> None:
                try:
                    connection.close()
                finally:
                    self._slots.release()

            return Lease(connection, None, give_up)

        def give_back() -> None:
            session.used = time.monotonic()
            if wanted.close:
                self._forget(wanted.key)
            session.lock.release()
            self._slots.release()

        return Lease(session.connection, session, give_back)

    def kill(self, fragment: str) -> None:
        """Tell the engine to stop queries whose text contains ``fragment``. The engine assigns query ids by itself."""
        condition = f"position(query, {quote(fragment)}) > 0 AND query NOT ILIKE 'KILL QUERY%'"
        with self.connection() as connection:
            connection.query(f"KILL QUERY WHERE {condition} ASYNC", "Null")

    def kill_all(self) -> None:
        """Tell the engine to stop every query."""
        self.killing()
        with self.connection() as connection:
            connection.query("KILL QUERY WHERE query NOT ILIKE 'KILL QUERY%' ASYNC", "Null")

    def killing(self) -> None:
        """Note that somebody is about to stop queries: the engine reports an insert that it stopped as done."""
        with self._kills_lock:
            self.kills += 1

    def stop(self, query: Future[None], fragment: str) -> None:
        """Stop one query and wait until it has stopped. With only a closed pipe, it would run on."""
        while not query.done():
            self.kill(fragment)
            with contextlib.suppress(Exception):
                query.result(_KILL_SECONDS)

    def _new_connection(self) -> Connection:
        assert self._connect is not None, "the engine is not open"
        return self._connect(str(self._data))

    def _forget(self, key: tuple[str, str]) -> None:
        """Drop a session with its settings and temporary tables."""
        with self._sessions_lock:
            session = self._sessions.pop(key)
        session.connection.close()

    def _session(self, wanted: SessionOptions) -> Session:
        now = time.monotonic()
        expired: list[Session] = []
        with self._sessions_lock:
            for key, old in list(self._sessions.items()):
                if now - old.used > old.timeout and not old.lock.locked():
                    expired.append(self._sessions.pop(key))
            session = self._sessions.get(wanted.key)
            if session is None:
                if wanted.must_exist:
                    raise ClickHouseError(372, f"Session {wanted.name} not found", "SESSION_NOT_FOUND", 404)
                session = self._sessions[wanted.key] = Session(self._new_connection())
            free = session.lock.acquire(blocking=False)
            if free:
                session.timeout = wanted.timeout
        for old in expired:
            old.connection.close()
        if not free:
            message = f"Session {wanted.name} is locked by a concurrent client"
            raise ClickHouseError(373, message, "SESSION_IS_LOCKED", 500)
        return session


def take_role(connection: Connection, role: str) -> None:
    """Confine a connection to a role that only reads, whatever an earlier statement on it did."""
    connection.query(f"SET ROLE {role}", "Null")
    connection.query("SET readonly = 2", "Null")


def apply_settings(lease: Lease, settings: dict[str, str]) -> None:
    """Apply a URL's settings for one request.

    They hold for that request only. On a session they stay until a request comes without them. That saves a round
    through the engine for clients that always send the same settings.

    Raises:
        ClickHouseError: Code 115 for a name that cannot be a setting; the engine's own code for an unknown one.
    """
    for name in settings:
        if not name.isascii() or not name.isidentifier():
            raise ClickHouseError(115, f"Unknown setting '{name}'", "UNKNOWN_SETTING")
    connection, session = lease.connection, lease.session
    if session is not None:
        for name in [n for n, (value, _) in session.applied.items() if settings.get(n) != value]:
            connection.query(session.applied.pop(name)[1], "Null")
        settings = {name: value for name, value in settings.items() if name not in session.applied}
    if not settings:
        return
    restore = _restoring(connection, settings) if session is not None else {}
    connection.query(
        "SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items()), "Null"
    )
    if session is not None:
        session.applied |= {name: (value, restore[name]) for name, value in settings.items()}


def _restoring(connection: Connection, settings: dict[str, str]) -> dict[str, str]:
    """Return, for each setting, the statement that restores its present value."""
    names = ", ".join(map(quote, settings))
    sql = f"SELECT name, value, changed FROM system.settings WHERE name IN ({names})"
    found = {name: f"SET {name} = DEFAULT" for name in settings}
    for line in connection.query(sql, "JSONCompactEachRow").bytes().splitlines():
        name, value, changed = json.loads(line)
        if changed:
            found[name] = f"SET {name} = {quote(value)}"
    return found
