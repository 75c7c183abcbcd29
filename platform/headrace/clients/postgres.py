"""The Postgres database that Dagster may keep its records in: its address, tried before it is used."""

from __future__ import annotations

from functools import cache

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from headrace.core import extras
from headrace.core.errors import Fatal

_CONNECT_SECONDS = 5


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


def described(url: str) -> str:
    """Name server and database, without user and password; connects once.

    Raises:
        Fatal: It does not let us in; says what to do.
    """
    place = make_url(reachable(url))
    return f"{place.host}:{place.port or 5432}/{place.database}"
