"""Who runs a run: a process beside the code location, or a worker of another machine, by ``HEADRACE_RUN_LAUNCHER``.

Workers take runs from Redis through Celery. dagster-celery alone calls a run healthy for as long as Celery says that
its task has started, which it says for ever once worker and child are gone (dagster#33493). So whoever runs a run
also says every few seconds that it lives (``beat``), in a key of Redis that expires. Dagster's monitor asks for it; a
run whose key is gone has failed, and is run again as one whose process died.

A worker that was frozen for longer and goes on finds its key gone, and ends. What it does until then is harmless:
each write to lake and warehouse is decided where it is made (docs/adr/0062).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

from headrace.config.settings import Settings
from headrace.core import extras
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

#: So often a run says that it lives, and for so long it is believed, s.
BEAT_SECONDS, BELIEVED_SECONDS = 3.0, 15
QUEUE = "dagster"
_TIMEOUT = 5.0


def made_for(config: Settings, inst_data: ConfigurableClassData | None) -> RunLauncher[Any]:
    """Make the launcher that the settings ask for.

    Raises:
        MissingExtra: Celery is not installed.
        Fatal: The settings lack what runs on other machines need.
    """
    if config.run_launcher == "local":
        return DefaultRunLauncher(inst_data=inst_data)
    return _celery(config, inst_data)


def celery_options(config: Settings) -> dict[str, Any]:
    """Return what ``celery.Celery`` is given, by launcher and worker alike.

    Raises:
        MissingExtra: Celery is not installed.
        Fatal: The settings lack what runs on other machines need.
    """
    extras.require("celery", "HEADRACE_RUN_LAUNCHER=celery")
    url = config.celery_broker.get_secret_value()
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise Fatal(
            "HEADRACE_CELERY_BROKER is no address of Redis: write redis://user:password@host:6379/0, because"
            " HEADRACE_RUN_LAUNCHER is celery"
        )
    if config.dagster_postgres is None:
        raise Fatal(
            "HEADRACE_DAGSTER_POSTGRES is not set, and workers on other machines do not see a SQLite file: set it"
            " to postgresql://user:password@host:5432/database"
        )
    return {
        "broker": url,
        "backend": url,
        "config_source": {
            "worker_prefetch_multiplier": 1,
            "broker_connection_retry_on_startup": True,
            # longer than any run: Redis would hand out a task again that nobody has taken for so long
            "broker_transport_options": {"visibility_timeout": 7 * 86_400},
            "result_expires": 86_400,
        },
    }


def _celery(config: Settings, inst_data: ConfigurableClassData | None) -> RunLauncher[Any]:
    options = celery_options(config)
    from dagster_celery.launcher import CeleryRunLauncher
    from redis.exceptions import RedisError

    class WatchedCeleryRunLauncher(CeleryRunLauncher):
        """Celery's launcher, which believes a run only while it says that it lives."""

        def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
            with suppress(RedisError):  # then nothing is known
                found = super().check_run_worker_health(run)
                if found.status in (WorkerStatus.SUCCESS, WorkerStatus.FAILED):
                    return found
            return health(config, run.run_id)

        def get_run_worker_debug_info(
            self, run: DagsterRun, include_container_logs: bool | None = True
        ) -> str | None:
            return None  # dagster-celery asks Celery for what a result does not have

    return WatchedCeleryRunLauncher(default_queue=QUEUE, inst_data=inst_data, **options)


def health(config: Settings, run_id: str) -> CheckRunHealthResult:
    """Tell whether a run that has begun is still being run.

    A Redis that is away, or has just started without what it knew, tells nothing: then the run is believed to live.
    """
    from redis.exceptions import RedisError

    try:
        redis = connected(config)
        if who := redis.get(_key(run_id)):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"on {_text(who)}")
        up = int(redis.info("server")["uptime_in_seconds"])  # type: ignore[index]
    except RedisError as error:
        return CheckRunHealthResult(WorkerStatus.RUNNING, f"not known: {error}")
    if up < 2 * BELIEVED_SECONDS:
        return CheckRunHealthResult(WorkerStatus.RUNNING, "not known: Redis has just started")
    return CheckRunHealthResult(WorkerStatus.FAILED, f"its worker has been silent for {BELIEVED_SECONDS} s")


@contextmanager
def beat(config: Settings, run_id: str) -> Iterator[None]:
    """Say for the duration of the block that this process runs a run.

    If this process was silent for longer than it is believed, others run the run by now: it gets SIGTERM, which Dagster
    takes for a termination of the run.
    """
    from redis.exceptions import RedisError

    redis, key, ended = connected(config), _key(run_id), threading.Event()
    with suppress(RedisError):
        redis.set(key, _whoami(), ex=BELIEVED_SECONDS)
    beating = threading.Thread(target=_beat_until, args=(redis, key, ended), name="run-beat", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(RedisError):
            redis.delete(key)


def _beat_until(redis: Redis, key: str, ended: threading.Event) -> None:
    from redis.exceptions import RedisError

    last = time.monotonic()
    while not ended.wait(BEAT_SECONDS):
        silent = time.monotonic() - last
        try:
            if silent > BELIEVED_SECONDS and not redis.exists(key):
                log.error("this process was silent for %.0f s: its run is given up", silent)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            redis.set(key, _whoami(), ex=BELIEVED_SECONDS)
        except RedisError as error:
            log.warning("Redis does not hear that the run lives: %s", error)
            continue
        last = time.monotonic()


def connected(config: Settings) -> Redis:
    """Connect to the Redis of the workers; lazily, so this does not fail."""
    from redis import Redis

    return Redis.from_url(
        config.celery_broker.get_secret_value(), socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
    )


def _key(run_id: str) -> str:
    return f"headrace:run:{run_id}"


def _whoami() -> str:
    return f"{socket.gethostname()}, pid {os.getpid()}"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
