"""The Postgres database that Dagster may keep its records in: its address, tried before it is used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from headrace.core import extras
from headrace.core.errors import Fatal

_CONNECT_SECONDS = 5
_ASK_SECONDS = 1.0
#: How soon either end notices that the other machine is gone: idle + interval * count, s.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_SERVER_KEEPALIVE = " ".join(f"-c tcp_{name}={value}" for name, value in _KEEPALIVE.items())


@cache
def reachable(url: str) -> str:
    """Return the address as SQLAlchemy takes it, after one connection.

    Dagster's own storages retry for some time and then bury the driver's words below three of their own.

    Raises:
        MissingExtra: The extra that connects to Postgres is not installed.
        Fatal: It is no address, or the server does not let us in; says what to do.
    """
    extras.require("postgres", "HEADRACE_DAGSTER_POSTGRES")
    import psycopg2  # installed with the extra alone

    try:
        address = make_url(url.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        address = make_url("none://")
    if address.drivername != "postgresql" or not address.host or not address.database:
        raise Fatal(
            "HEADRACE_DAGSTER_POSTGRES is no address: write postgresql://user:password@host:5432/database, with "
            "%-escapes in the password"
        )
    text = address.render_as_string(hide_password=False)
    place = f"{address.host}:{address.port or 5432}/{address.database} as {address.username}"
    try:
        psycopg2.connect(text, connect_timeout=_CONNECT_SECONDS).close()
    except psycopg2.Error as error:
        said = " ".join(str(error).split()).replace(text, "...")
        if address.password:
            said = said.replace(str(address.password), "...")
        raise Fatal(
            f"HEADRACE_DAGSTER_POSTGRES: no connection to {place}: {said}; check address and password, and that "
            "the database exists"
        ) from None
    # SQLAlchemy 2.1 would take another driver than the one that dagster-postgres brings
    return address.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """A lock of one session of Postgres.

    Attributes:
        holder: Who holds it instead of this process; empty if this process does.
        is_held: Tells whether this process still holds it, which is as long as its connection lasts.
    """

    holder: str
    is_held: Callable[[], bool]


@contextmanager
def advisory_lock(url: str, number: int, name: str, wait_seconds: float) -> Iterator[AdvisoryLock]:
    """Hold an advisory lock for the block, or say who holds it.

    A machine that is gone without a word loses it after 25 s.

    Args:
        url: Address of the database.
        number: The lock, 64 bits.
        name: What others are told of this process.
        wait_seconds: How long to wait for another holder.

    Raises:
        Fatal: The server lets nobody in, or ends the connection meanwhile.
    """
    address = reachable(url).replace("postgresql+psycopg2://", "postgresql://", 1)
    import psycopg2  # installed with the extra alone

    connection = None
    try:
        connection = psycopg2.connect(
            address,
            connect_timeout=_CONNECT_SECONDS,
            options=_SERVER_KEEPALIVE,
            application_name=name[:63],
            **_KEEPALIVE,
        )
        connection.autocommit = True
        holder = _locked(connection, number, wait_seconds)
    except psycopg2.Error as error:
        if connection is not None:
            connection.close()
        raise Fatal(f"HEADRACE_DAGSTER_POSTGRES: {' '.join(str(error).split())}") from None

    def is_held() -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    try:
        yield AdvisoryLock(holder, is_held)
    finally:
        connection.close()


def _locked(connection: Any, number: int, wait_seconds: float) -> str:
    """Ask for a lock again and again; returns who holds it instead, empty for nobody."""
    waiting, until = threading.Event(), time.monotonic() + wait_seconds
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (number,))
            if cursor.fetchone()[0]:
                return ""
            if time.monotonic() >= until:
                break
            waiting.wait(_ASK_SECONDS)
        cursor.execute(
            "SELECT coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'its own machine'), a.backend_start"
            " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
            " AND l.classid::bigint = %s AND l.objid::bigint = %s",
            (number >> 32, number & 0xFFFF_FFFF),
        )
        found = cursor.fetchone()
    return f"'{found[0]}' at {found[1]}, since {found[2]:%Y-%m-%d %H:%M:%S}" if found else "another process"


def described(url: str) -> str:
    """Name server and database, without user and password; connects once.

    Raises:
        Fatal: It does not let us in; says what to do.
    """
    place = make_url(reachable(url))
    return f"{place.host}:{place.port or 5432}/{place.database}"
