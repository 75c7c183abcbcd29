"""Run a ClickHouse of the tests' own, and build the project's models in it."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from headrace.config.settings import Settings, child_environment, load_settings, unchanged_environment
from headrace.core import extras
from headrace.core.errors import Fatal
from headrace.flow.publish import publish
from headrace.models import project as models
from headrace.models import versions
from headrace.pipelines import Pipeline
from headrace.streams.adapters import warehouse as adapter
from headrace.testing.landing import Landed, pipeline_of


class Warehouse:
    """A ClickHouse with the project's raw tables and models. Made by ``warehouse``.

    Attributes:
        settings: Settings that point at it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._server = adapter(settings)

    def load(self, landed: Landed) -> None:
        """Publish what landed to the raw tables, as the platform does; what was loaded before stays."""
        for table in (landed.lake.good, landed.lake.rejected):
            publish(table, self._server, unsure=False)

    def build(self, stream: str, first: date, last: date | None = None) -> None:
        """Build and test the dbt models of a stream, with the marts of some days.

        Args:
            stream: Name of the stream.
            first: First UTC day.
            last: Last UTC day; default: the first.

        Raises:
            Fatal: The dbt project does not parse, or a model or a test failed; the message holds what dbt said.
        """
        pipeline = self._ready(stream)
        with unchanged_environment():
            models.build(self.settings, pipeline, first, last or first)

    def unit_test(self, stream: str) -> None:
        """Run dbt's unit tests of a stream's models, once they have been built.

        Raises:
            Fatal: The dbt project does not parse, or a test failed; the message holds what dbt said.
        """
        pipeline = self._ready(stream)
        with unchanged_environment():
            models.unit_test(self.settings, pipeline)

    def _ready(self, stream: str) -> Pipeline:
        """Return the stream's declaration; a platform would run an older version of a project that is broken."""
        with unchanged_environment():
            problem = versions.current(self.settings).problem
        if problem is not None:
            raise Fatal(f"the dbt project cannot be used: {problem}")
        return pipeline_of(stream, self.settings)

    def query(self, sql: str) -> pl.DataFrame:
        """Return the rows of a query; marts are in the database ``analytics``, raw tables in ``raw``."""
        return pl.read_parquet(io.BytesIO(b"".join(self._server.stream(sql, "Parquet"))))

    def close(self) -> None:
        """Release the connection."""
        self._server.close()


@contextmanager
def warehouse() -> Iterator[Warehouse]:
    """Run a ClickHouse for the tests, empty, until the block ends.

    Nothing of a running platform is touched. What dbt has parsed is kept below ``.headrace/testing``, so that only the
    first run waits for it.

    Raises:
        MissingExtra: Headrace was installed without ``local``.
    """
    extras.require("local", "'headrace.testing.warehouse'")
    from headrace.local.embedded import CLICKHOUSE_USER, clickhouse_service
    from headrace.local.processes import LOOPBACK
    from headrace.local.supervisor import Supervisor

    home = load_settings(with_stack=False).home / "testing"
    port, password = _port(home / "port"), secrets.token_urlsafe(24)
    with TemporaryDirectory(prefix="headrace-testing-") as folder:
        service = clickhouse_service(Path(folder), port, child_environment(), password)
        with Supervisor([service]):
            settings = load_settings(
                with_stack=False, home=home, clickhouse_host=LOOPBACK, clickhouse_port=port,
                clickhouse_user=CLICKHOUSE_USER, clickhouse_password=password, clickhouse_secure=False,
                warehouse_cluster="",
            )  # fmt: skip
            running = Warehouse(settings)
            try:
                yield running
            finally:
                running.close()


def _port(kept: Path) -> int:
    """Choose a free port, the same as last time if it is free: dbt parses everything anew for another one."""
    from headrace.core.atomic import write_atomically
    from headrace.local.processes import pick_port

    try:
        usual = int(kept.read_text())
    except (OSError, ValueError):
        usual = 8125
    port = pick_port(usual)
    if port != usual or not kept.exists():
        write_atomically(kept, str(port))
    return port
