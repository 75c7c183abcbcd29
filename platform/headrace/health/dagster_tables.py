"""Dagster's own tables, read without Dagster, because importing it takes longer.

They are those of Dagster's storages, in SQLite or Postgres. ``tests/health/test_status.py`` holds what is read of them
against an instance that Dagster wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from headrace.clients.postgres import reachable
from headrace.config.settings import Settings
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextmanager
def tables(config: Settings, file: str, table: str) -> Iterator[Connection | None]:
    """Connect to one of Dagster's storages; gives None if Dagster has not run here.

    Args:
        config: Settings with the place of the storages.
        file: The SQLite file, below Dagster's history folder.
        table: A table that has to be there.

    Raises:
        Fatal: The tables cannot be read.
    """
    address = _address(config, file)
    if address is None:
        yield None
        return
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    engine = create_engine(address, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection if inspect(connection).has_table(table) else None
    except SQLAlchemyError as error:
        raise Fatal(f"Dagster's tables cannot be read: {str(error).splitlines()[0]}") from None
    finally:
        engine.dispose()


def _address(config: Settings, name: str) -> str | None:
    if config.dagster_postgres is not None:
        return reachable(config.dagster_postgres.get_secret_value())
    file = dagster_home(config) / "history" / name
    return f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true" if file.is_file() else None


def dagster_home(config: Settings) -> Path:
    """Return the folder of Dagster's instance."""
    return config.dagster_home or config.home / "dagster"
