"""Write the statements that make the read-only user of BI tools on a ClickHouse server.

It reads the database of the marts, but what is hidden from it. ``readonly = 2`` lets it set what drivers set; under 1,
the drivers of Metabase and Grafana fail. The embedded endpoint has a user of the same rights by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headrace.core.errors import Fatal, HeadraceError
from headrace.warehouse.cluster import Placement
from headrace.warehouse.ddl import literal, quoted
from headrace.warehouse.server import ClickHouseConfig, Refused, Server

#: Server codes for a user that may not, and for a server that cannot, make users.
_NOT_GRANTED, _NO_STORAGE = 497, 514


def statements(
    user: str,
    password: str,
    database: str,
    hidden: Iterable[str] = (),
    placement: Placement | None = None,
    beside: Iterable[tuple[str, str]] = (),
) -> list[str]:
    """Return the statements, which may be run again and again; the last run decides.

    They hold a digest of the password, not the password.

    Args:
        user: Name of the user.
        password: Its password.
        database: Database of the marts.
        hidden: Tables there that it neither reads nor sees.
        placement: On one server or on a cluster; default: on one.
        beside: What it reads of other databases, each with its database.
    """
    on = placement.on if placement else ""
    digest = hashlib.sha256(password.encode()).hexdigest()
    settings = "SETTINGS readonly = 2"
    identified = f"IDENTIFIED WITH sha256_hash BY {literal(digest)}"
    return [
        f"CREATE USER IF NOT EXISTS {quoted(user)}{on} {identified} {settings}",
        f"ALTER USER {quoted(user)}{on} {identified} {settings}",
        f"REVOKE{on} ALL ON *.* FROM {quoted(user)}",
        f"GRANT{on} SELECT ON {quoted(database)}.* TO {quoted(user)}",
        *(
            f"REVOKE{on} SELECT ON {quoted(database)}.{quoted(name)} FROM {quoted(user)}"
            for name in sorted(hidden)
        ),
        *(f"GRANT{on} SELECT ON {quoted(other)}.{quoted(name)} TO {quoted(user)}" for other, name in beside),
    ]


def ensure(config: ClickHouseConfig, user: str, password: str, made: Iterable[str]) -> None:
    """Make the user, and log in as it. A server that cannot make users, as the embedded one, must have it already.

    Args:
        config: The server, and who may make users there.
        user: Name of the user.
        password: Its password.
        made: The statements.

    Raises:
        Fatal: The server refuses; the message says what to run as whom.
    """
    server = Server(config)
    try:
        for sql in made:
            server.command(sql)
    except Refused as error:
        if error.code == _NOT_GRANTED and not _logs_in(config, user, password):
            raise Fatal(
                f"{config.clickhouse_user} may not make users on {server.where}: run 'headrace metabase user --sql' and"
                f" give its statements to an administrator ({error})"
            ) from error
        if error.code not in (_NOT_GRANTED, _NO_STORAGE):
            raise
    finally:
        server.close()
    if not _logs_in(config, user, password):
        raise Fatal(
            f"{server.where} does not let {user} in with its password; an embedded stack makes the user as it starts:"
            " restart it with 'headrace stack down' and 'headrace stack up'"
        )


def _logs_in(config: ClickHouseConfig, user: str, password: str) -> bool:
    server = Server(_As(config, user, password))
    try:
        server.query("SELECT 1")
    except HeadraceError:
        return False
    finally:
        server.close()
    return True


@dataclass(frozen=True)
class _Secret:
    text: str

    def get_secret_value(self) -> str:
        return self.text


class _As:
    """The same server as another user."""

    def __init__(self, config: ClickHouseConfig, user: str, password: str) -> None:
        self._config, self.clickhouse_user, self.clickhouse_password = config, user, _Secret(password)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)
