"""Run ``headrace up``: the platform in the foreground, with simulated live traffic to explore."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import HeadraceError, NotSet
from headrace.demo import view
from headrace.local.dagster import require_ui_port
from headrace.local.dagster_api import DagsterApi
from headrace.local.platform import backing_services, dagster_beside
from headrace.local.reload import Reloader
from headrace.local.supervisor import stop_on_signals
from headrace.pipelines import Kafka, Sqs
from headrace.producers import Producer
from headrace.producers.shared import SharedProducer
from headrace.producers.traffic import run_traffic
from headrace.streams.adapters import http_producer, producer

#: Seconds for which live traffic waits for a collector that does not answer.
_DOOR_SECONDS = 5.0


def up(home: Path, console: Console, *, rate: float, history: timedelta, ui_port: int | None = None) -> None:
    """Run the platform until interrupted.

    Args:
        home: State, logs and lake. Lake and warehouse persist between runs; broker and queue start empty.
        console: Terminal that shows the progress.
        rate: Simulated events per second, on average over the day; 0 for none.
        history: Period of past traffic to send at the start, so that there is data to see.
        ui_port: Exactly this port for the UI.

    Raises:
        Fatal: The UI's port is taken, a service does not start, or a service died too often.
    """

    def report(line: str) -> None:
        console.print(f"[yellow]{line}[/]", soft_wrap=True)

    require_ui_port(ui_port)
    stop = threading.Event()
    lake = load_settings().lake_uri
    own = {"HEADRACE_LAKE_URI": lake} if lake else {}  # other commands use this lake, too
    with ExitStack() as stack:
        with console.status("starting broker, queue and warehouse"):
            services, settings = stack.enter_context(
                backing_services(home, own, report, door="awaited", numbers=True)
            )
        with console.status("starting Dagster"):
            reloader = Reloader(settings, report)
            if reloader.project.problem:
                report(reloader.project.complaint)
            platform = stack.enter_context(
                dagster_beside(services, settings, ui_port, report, reloadable=True)
            )
            stack.callback(stop.set)
            platform.dagster.start()
        watching = threading.Thread(target=reloader.watch, args=(DagsterApi(platform.ui), stop), daemon=True)
        watching.start()
        if rate and len(settings.builtin_streams) < 2:
            console.print("[dim]no simulated traffic: builtin_streams leaves out streams that get it[/]")
        elif rate:
            traffic = threading.Thread(
                target=_traffic, args=(settings, rate, history, stop, report), daemon=True
            )
            traffic.start()
        view.show_address(platform.ui, console)
        view.show_door(settings, console)
        console.print(f"[dim]state and logs in {home}; ask with: headrace status, headrace query SQL[/]")
        with stop_on_signals(platform.dagster.request_stop):
            platform.dagster.watch()


def _traffic(
    settings: Settings, rate: float, history: timedelta, stop: threading.Event, report: Callable[[str], None]
) -> None:
    try:
        events = producer(settings, Kafka("analytics_events"))
        metrics = producer(settings, Sqs("metrics"))
        run_traffic(events, metrics, rate, stop, history, live=_live(settings, events, report))
    except HeadraceError as error:
        if not stop.is_set():
            report(f"the simulated traffic ended: {error}")


def _live(settings: Settings, events: Producer, report: Callable[[str], None]) -> Producer:
    """Return what takes live events: half of the people use the collector, where one runs and there is a key."""
    if not settings.collector_url:
        return events
    try:
        door = http_producer(settings, "events", _DOOR_SECONDS)
    except NotSet as missing:
        report(f"no simulated traffic over HTTP: {missing}")
        return events
    return SharedProducer(events, door, report)
