"""Commands for Metabase: the read-only user of BI tools, and what Metabase shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from headrace.cli.shared import Json, console, emit

if TYPE_CHECKING:
    from headrace.dashboards.metabase import Change

app = typer.Typer(
    no_args_is_help=True,
    help="Describe marts, questions and dashboards in Metabase; make the user that it reads as.",
)
Force = Annotated[bool, typer.Option("--force", help="Overwrite what was edited by hand, too.")]

_WHEN = "a 'bi:' mark that a model gets or loses counts once this is run again; in an embedded stack, once it starts"
_MARKS = {"create": "+", "update": "~", "restore": "+", "archive": "-", "edited": "!", "missing": "?"}
_STYLES = {"create": "green", "restore": "green", "update": "yellow", "archive": "red"}


@app.command("plan")
def plan(as_json: Json = False, force: Force = False) -> None:
    """Say what 'apply' would do, a line each. Nothing is written."""
    changes, skipped, _ = _reconciled(write=False, force=force)
    _show(changes, skipped, as_json, details=False, done=False)


@app.command("diff")
def diff(as_json: Json = False, force: Force = False) -> None:
    """Say how Metabase differs from the definitions, in detail. Exit status 1 if it does."""
    changes, skipped, _ = _reconciled(write=False, force=force)
    _show(changes, skipped, as_json, details=True, done=False)
    raise typer.Exit(1 if changes else 0)


@app.command("apply")
def apply(as_json: Json = False, force: Force = False) -> None:
    """Make Metabase show what is defined. What was edited by hand is reported and left: exit status 1."""
    from headrace.dashboards.metabase.reconcile import REPORTED

    changes, skipped, writes = _reconciled(write=True, force=force)
    _show(changes, skipped, as_json, details=False, done=True, writes=writes)
    raise typer.Exit(1 if any(one.action in REPORTED for one in changes) else 0)


@app.command("user")
def user(
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements instead of running them.")] = False,
    as_json: Json = False,
) -> None:
    """Make the ClickHouse user that Metabase reads as, and print its password. An embedded stack has made it."""
    from headrace.config.settings import settings
    from headrace.core.kept_secret import kept_secret
    from headrace.models.exposed import beside, hidden
    from headrace.warehouse.bi_user import ensure, statements
    from headrace.warehouse.cluster import Placement

    config = settings()
    password = config.bi_password.get_secret_value() or kept_secret(config.bi_password_file)
    made = statements(
        config.bi_user,
        password,
        config.dbt_schema,
        hidden(config),
        Placement(config.warehouse_cluster),
        beside(config),
    )
    if sql:
        emit({"statements": made}, as_json, [escape(f"{one};") for one in made])
        return
    ensure(config.with_warehouse(), config.bi_user, password, made)
    found = {
        "host": config.clickhouse_host, "port": config.clickhouse_port, "database": config.dbt_schema,
        "user": config.bi_user, "password": password,
    }  # fmt: skip
    lines = [escape(f"{name:<9} {value}") for name, value in found.items()]
    emit(found, as_json, [*lines, f"[dim]{_WHEN}[/]"])


def _reconciled(*, write: bool, force: bool) -> tuple[list[Change], dict[str, str], int]:
    from headrace.config.settings import settings
    from headrace.core.errors import NotSet
    from headrace.dashboards.metabase import Access, Client, reconcile, wanted

    config = settings()
    for name, value in (
        ("HEADRACE_METABASE_URL", config.metabase_url),
        ("HEADRACE_METABASE_API_KEY", config.metabase_api_key.get_secret_value()),
    ):
        if not value:
            raise NotSet(f"{name} is not set; docs/metabase.md says where to get it")
    client = Client(Access(config.metabase_url, config.metabase_api_key.get_secret_value()))
    asked = wanted(config)
    return reconcile(client, asked, write=write, force=force), dict(asked.skipped), client.writes


def _show(
    changes: list[Change],
    skipped: dict[str, str],
    as_json: bool,
    *,
    details: bool,
    done: bool,
    writes: int = 0,
) -> None:
    if as_json:
        value: dict[str, Any] = {"changes": [asdict(one) for one in changes], "skipped": skipped}
        emit(value | ({"writes": writes} if done else {}), True, [])
        return
    say: Callable[[str], None] = lambda line: console.print(line, soft_wrap=True)  # noqa: E731
    for one in changes:
        style = _STYLES.get(one.action, "bold magenta")
        told = "" if details else _told(one)
        say(f"[{style}]{_MARKS[one.action]}[/] {one.kind:<10} {escape(one.name)}{escape(told)}")
        for line in one.details if details else ():
            say(f"    {escape(line)}")
    for name, why in skipped.items():
        say(f"[dim]  left out   {escape(name)}: {escape(why)}[/]")
    say(_summary(changes, done))


def _told(one: Change) -> str:
    if one.action == "edited":
        return f"  edited in Metabase, left as it is: {', '.join(one.details)[:160]}"
    if one.action == "missing":
        return f"  {one.details[0]}"
    return ""


def _summary(changes: list[Change], done: bool) -> str:
    if not changes:
        return "Metabase shows what is defined: nothing to do"
    counts: dict[str, int] = {}
    for one in changes:
        counts[one.action] = counts.get(one.action, 0) + 1
    told = ", ".join(f"{count} {action}" for action, count in counts.items())
    hint = "; 'headrace metabase diff' shows the edits, --force overwrites them" if "edited" in counts else ""
    return f"{'done' if done else 'to do'}: {told}{hint}"
