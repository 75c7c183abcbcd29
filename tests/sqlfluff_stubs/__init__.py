"""What dbt gives to Jinja, as far as ``sqlfluff`` needs it to see the SQL that a file becomes.

dbt's own templater for sqlfluff asks the warehouse for its tables first; this one asks nobody. The macros here stand in
for those of the project that hand back values rather than text, which only dbt's Jinja can.
"""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import pass_context
from jinja2.runtime import Context

_PROJECT = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "dbt_project" / "dbt_project.yml").read_text()
)

execute = True
invocation_id = "0"
run_started_at = datetime(2024, 3, 3, tzinfo=UTC)
api = SimpleNamespace(Relation=SimpleNamespace(create=lambda schema, identifier: f"{schema}.{identifier}"))
exceptions = SimpleNamespace(raise_compiler_error=lambda message: "")


def setting(name: str) -> Any:
    """A var as dbt_project.yml has it."""
    return _PROJECT["vars"][name]


def has_stream(name: str) -> bool:
    """All are in use."""
    return True


def env_var(name: str, default: str = "") -> str:
    """Nothing is set."""
    return default


def config(**options: Any) -> str:
    """Says nothing."""
    return ""


def ref(name: str) -> str:
    """A model, unquoted."""
    return f"analytics.{name}"


def source(schema: str, name: str) -> str:
    """A source, unquoted."""
    return f"{schema}.{name}"


def raw_inserts(table: str) -> str:
    """On one server, the raw table."""
    return source("raw", table)


def every_shard(relation: str) -> str:
    """On one server, the table."""
    return relation


def deduplication_window() -> str:
    """On one server."""
    return "non_replicated_deduplication_window"


def in_event_time() -> bool:
    """It is."""
    return True


def window_time() -> str:
    """In event time."""
    return "occurred_at"


def window_date(partition: str) -> str:
    """In event time."""
    return partition


def page() -> str:
    """Page or screen."""
    return "coalesce(page_url, screen_name)"


def rollup_widths() -> Any:
    """All of them."""
    return setting("rollup_seconds")


def window_start(time: str, width: int | str) -> str:
    """A time, rounded down."""
    return f"toStartOfInterval({time}, toIntervalSecond({width}))"


def window_widths(widths: list[int]) -> str:
    """An array of them."""
    return f"[{', '.join(map(str, widths))}]"


def rebuilt_range() -> tuple[str, str]:
    """A range."""
    return "2024-03-01", "2024-03-02"


def in_rebuilt_days(column: str, back: int = 0, ahead: int = 0, later: bool = False) -> str:
    """A range, as in a rebuild."""
    if later:
        return f"{column} >= toDate('2024-03-01') - {back}"
    return f"{column} between toDate('2024-03-01') - {back} and toDate('2024-03-02') + {ahead}"


class _Package:
    """The package's own name in front of a macro: that of the project, or the one here that stands in for it."""

    def __getattr__(self, name: str) -> Any:
        if name in globals():
            return globals()[name]

        @pass_context
        def macro(context: Context, *values: Any, **named: Any) -> Any:
            return context.resolve(name)(*values, **named)

        return macro


headrace = _Package()
