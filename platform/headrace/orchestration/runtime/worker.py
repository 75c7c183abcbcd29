"""A worker: takes runs from Redis, and runs each in a process of its own, forked with all imports done.

A new interpreter would import Dagster, dbt and the definitions for every run, which takes five seconds of a core. The
worker imports them once and has no threads then; Celery forks a child for each run and ends it with the run.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Fatal
from headrace.orchestration.runtime import launchers
from headrace.orchestration.runtime.code_server import DEFINITIONS, LIBRARIES, RUNS, import_once

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger(__name__)


def run(config: Settings) -> None:
    """Take runs until SIGTERM; runs that have begun are then waited for.

    Raises:
        Fatal: Redis does not answer, or the settings lack something.
    """
    options = launchers.celery_options(config)
    _reachable(config)
    import_once([*LIBRARIES, DEFINITIONS, *RUNS])
    say_that_runs_live(config)
    application(options).worker_main(
        [
            "worker",
            f"--queues={launchers.QUEUE}",
            f"--concurrency={config.worker_runs}",
            "--max-tasks-per-child=1",
            f"--hostname=headrace@{socket.gethostname()}",
            "--without-mingle",
            "--loglevel=INFO",
        ]
    )


def application(options: dict[str, Any]) -> Celery:
    """Make the Celery application whose tasks run runs."""
    from dagster_celery.make_app import make_app
    from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

    app: Celery = make_app(app_args=options)  # type: ignore[no-untyped-call]
    for create in (create_execute_job_task, create_resume_job_task):
        create(app)
    return app


def say_that_runs_live(config: Settings) -> None:
    """Have each process that runs a run say so, from its first moment to its last."""
    from celery.signals import task_postrun, task_prerun
    from dagster._serdes import unpack_value
    from dagster._utils.interrupts import setup_interrupt_handlers

    beating = ExitStack()

    def begins(args: Any, kwargs: Any, **_: Any) -> None:
        setup_interrupt_handlers()  # a run that is terminated in the UI gets SIGTERM
        packed = next(iter([*args, *kwargs.values()]))
        arguments: Any = unpack_value(packed)
        beating.enter_context(launchers.beat(config, arguments.run_id))

    def ends(**_: Any) -> None:
        beating.close()

    task_prerun.connect(begins, weak=False)
    task_postrun.connect(ends, weak=False)


def _reachable(config: Settings) -> None:
    from redis.exceptions import RedisError

    try:
        launchers.connected(config).ping()
    except (RedisError, ValueError) as error:
        raise Fatal(
            f"HEADRACE_CELERY_BROKER: Redis does not answer: {error}; check the address, and that it runs"
        ) from None


if __name__ == "__main__":
    from headrace.orchestration.runtime.one_line import said_in_one_line

    with said_in_one_line():
        run(load_settings())
