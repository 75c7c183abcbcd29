"""Run ``headrace demo``: start the platform, publish input, watch Dagster work, reconcile, and summarise."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Fatal
from headrace.demo import view
from headrace.demo.progress import Progress, Result
from headrace.local.dagster import require_ui_port
from headrace.local.platform import backing_services, dagster_beside
from headrace.models import versions as dbt_versions

if TYPE_CHECKING:
    from headrace.streams.stream import Stream

#: Shorter pauses than the defaults: all of the demo's data arrives at once.
TUNING = {
    "HEADRACE_SENSOR_SECONDS": "2",
    "HEADRACE_REFRESH_COOLDOWN_SECONDS": "1",
    "HEADRACE_INGEST_IDLE_SECONDS": "2",
    "HEADRACE_INGEST_LINGER_SECONDS": "0",
    "HEADRACE_INGEST_MAX_SECONDS": "120",
    "HEADRACE_BATCH_MESSAGES": "200000",
    "HEADRACE_ARCHIVE": "",  # the demo's own archive is empty: other files would change its numbers
}


def demo(home: Path, console: Console, *, keep: bool = False, ui_port: int | None = None) -> Result:
    """Run the demo; in a project, on its samples. With ``keep``, serve the UI afterwards until interrupted.

    Raises:
        Fatal: A service does not start, a Dagster run failed, or the deadline passed.
    """
    require_ui_port(ui_port)
    asked = load_settings(with_stack=False)
    project = asked.project
    if project is None and len(asked.builtin_streams) < 2:
        raise Fatal("the demo is of Headrace's own streams: unset HEADRACE_BUILTIN_STREAMS for it")
    if project is not None:
        from headrace.demo.samples import find_samples

        find_samples(asked, project.samples)  # before anything is started
    progress = Progress()
    with ExitStack() as stack, view.live(progress, console) as report:
        background = stack.enter_context(ThreadPoolExecutor(3))
        importing = background.submit(_import_work)
        old = _set_aside(home)
        parsing = background.submit(_parse_models, home)
        tuning = {**TUNING, "HEADRACE_ARCHIVE": str(project.samples)} if project else TUNING
        services, settings = stack.enter_context(
            backing_services(home, tuning, report, door=None if project else "beside", numbers=keep)
        )
        progress.services += ["broker", "queue", "warehouse"]
        importing.result()
        from headrace.demo.feed import start_feeds
        from headrace.demo.samples import start_samples
        from headrace.demo.work import reconcile_all, watch
        from headrace.local.dagster_api import DagsterApi
        from headrace.streams.stream import streams

        progress.feeds = start_samples(settings) if project else start_feeds(settings)
        progress.stage = "starting Dagster while the input is published"
        parsing.result()
        platform = stack.enter_context(dagster_beside(services, settings, ui_port, report))
        platform.dagster.start()
        progress.services += ["code location", "webserver", "daemon"]
        api = DagsterApi(platform.ui)
        opened = streams(settings)
        for stream in opened.values():
            stack.callback(stream.close)
        watch(progress, api, opened, settings)
        progress.stage = "reconciling"
        result = reconcile_all(progress, api, opened, settings, platform.ui)
        report.finish()
        view.summary(result, console)
        background.submit(shutil.rmtree, old, ignore_errors=True)
        if keep:
            view.show_address(platform.ui, console)
            platform.dagster.watch()
        return result


def demo_of_running(console: Console) -> Result:
    """Run the demo on the platform that the settings name, which runs already and holds nothing yet.

    Raises:
        Fatal: It holds messages already, which the demo would count with its own; a run failed; or the deadline passed.
    """
    from headrace.demo.feed import start_feeds
    from headrace.demo.work import reconcile_all, watch
    from headrace.local.dagster_api import DagsterApi
    from headrace.streams.stream import streams

    settings = load_settings(with_stack=False)
    settings.export()
    opened = {name: stream for name, stream in streams(settings).items() if name in settings.builtin_streams}
    progress = Progress()
    with ExitStack() as stack, view.live(progress, console) as report:
        for stream in opened.values():
            stack.callback(stream.close)
        _refuse_what_holds_rows(opened, settings)
        progress.feeds = start_feeds(settings)
        api = DagsterApi(settings.ui_url)
        watch(progress, api, opened, settings)
        progress.stage = "reconciling"
        result = reconcile_all(progress, api, opened, settings, settings.ui_url)
        report.finish()
        view.summary(result, console)
        return result


def _refuse_what_holds_rows(opened: dict[str, Stream], settings: Settings) -> None:
    for name, stream in opened.items():
        if stream.lake.good.exists() and (held := sum(stream.lake.good.counts_by_day().values())):
            raise Fatal(
                f"the lake {settings.lake} holds {held:,} rows of {name}: the demo counts what it finds, so it needs an"
                " installation that has taken nothing yet"
            )


def _import_work() -> None:
    """Import Polars, pandera and the clients while the services start. Both take seconds."""
    import headrace.demo.work  # noqa: F401


def _parse_models(home: Path) -> None:
    """Parse the dbt project while the services start. Parsing needs none of them, and Dagster needs the manifest."""
    project = dbt_versions.current(load_settings(with_stack=False, home=home))
    if project.problem:  # the demo would show an older version of the models
        raise Fatal(f"the dbt project cannot be used: {project.problem}")


def _set_aside(home: Path) -> Path:
    """Move the demo's old state away, so that the demo counts only its own messages.

    Deletion takes seconds for tens of thousands of files. For minutes afterwards, ext4 without a journal creates files
    ten times slower. So the old state is deleted after the demo.
    """
    aside = home / "old" / str(time.time_ns())
    for name in ("lake", "clickhouse", "collector", "dagster", "locks", "logs"):
        if (home / name).exists():
            try:
                aside.mkdir(parents=True, exist_ok=True)
                (home / name).rename(aside / name)
            except OSError as error:
                raise Fatal(
                    f"{home / name} cannot be emptied: {error}; remove it or set HEADRACE_HOME"
                ) from error
    return aside.parent
