"""``headrace up``: the platform in the foreground, with live simulated traffic to explore."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import HeadraceError
from headrace.demo import view
from headrace.local.dagster import require_ui_port
from headrace.local.dagster_api import DagsterApi
from headrace.local.platform import backing_services, dagster_beside
from headrace.local.reload import Reloader
from headrace.local.supervisor import stop_on_signals
from headrace.pipelines import Kafka, Sqs
from headrace.producers.traffic import run_traffic
from headrace.streams.adapters import producer


def up(home: Path, console: Console, *, rate: float, history: timedelta, ui_port: int | None = None) -> None:
    """Run until interrupted.

    Args:
        home: State, logs and lake; lake and warehouse are kept from one run to the next, broker and queue are not.
        console: Where to tell.
        rate: Simulated events per second, on average over the day; 0 for none.
        history: Traffic of this much of the past is sent at once, so that there is something to see.
        ui_port: Exactly this port for the UI.

    Raises:
        Fatal: The UI's port is taken, a service does not start, or died too often.
    """

    def say(line: str) -> None:
        console.print(f"[yellow]{line}[/]", soft_wrap=True)

    require_ui_port(ui_port)
    stop = threading.Event()
    lake = load_settings().lake_uri
    own = (
        {"HEADRACE_LAKE_URI": lake} if lake else {}
    )  # a lake of the person's own, which commands look at, too
    with ExitStack() as stack:
        with console.status("starting broker, queue and warehouse"):
            services, settings = stack.enter_context(backing_services(home, own, report=say))
        with console.status("starting Dagster"):
            reloader = Reloader(settings, say)
            if reloader.project.problem:
                say(reloader.project.complaint)
            platform = stack.enter_context(dagster_beside(services, settings, ui_port, say, reloadable=True))
            stack.callback(stop.set)
            platform.dagster.start()
        watching = threading.Thread(target=reloader.watch, args=(DagsterApi(platform.ui), stop), daemon=True)
        watching.start()
        if rate:
            traffic = threading.Thread(
                target=_traffic, args=(settings, rate, history, stop, say), daemon=True
            )
            traffic.start()
        view.kept(platform.ui, console)
        console.print(f"[dim]state and logs in {home}; ask with: headrace status, headrace query SQL[/]")
        with stop_on_signals(platform.dagster.request_stop):
            platform.dagster.watch()


def _traffic(settings: Settings, rate: float, history: timedelta, stop: threading.Event, say: object) -> None:
    assert callable(say)
    try:
        run_traffic(
            producer(settings, Kafka("analytics_events")),
            producer(settings, Sqs("metrics")),
            rate,
            stop,
            history,
        )
    except HeadraceError as error:
        if not stop.is_set():
            say(f"the simulated traffic ended: {error}")
