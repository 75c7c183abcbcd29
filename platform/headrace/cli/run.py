"""The command that runs one of Dagster's processes, as machines of an installation do."""

from __future__ import annotations

import enum
import os
from typing import Annotated

import typer

from headrace.config import roles
from headrace.config.shipped import prepare_dagster


class Role(enum.StrEnum):
    """What a process does."""

    CODE = "code"
    WEBSERVER = "webserver"
    DAEMON = "daemon"
    WORKER = "worker"


def run(
    role: Annotated[
        Role,
        typer.Argument(
            help="code: serve the definitions; webserver: the UI; daemon: sensors, schedules, queue (one of it);"
            " worker: run runs."
        ),
    ],
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Port: of the UI 3000, of the code HEADRACE_CODE_PORT."),
    ] = None,
) -> None:
    """Run one of Dagster's processes in the foreground: an installation of several machines or containers.

    Webserver and daemon find the code at HEADRACE_CODE_HOST and HEADRACE_CODE_PORT. All need HEADRACE_DAGSTER_POSTGRES
    and a lake that all machines see.
    """
    from headrace.config.settings import child_environment, settings

    config = settings()
    config.export()
    home = config.dagster_home or config.home / "dagster"
    prepare_dagster(home, config.max_concurrent_runs)
    workspace = roles.write_workspace(home, config.code_host, config.code_port)
    at = host or "127.0.0.1"
    command = {
        Role.CODE: lambda: roles.code(at, port or config.code_port),
        Role.WEBSERVER: lambda: roles.webserver(at, port or 3000, workspace),
        Role.DAEMON: lambda: roles.daemon(workspace, alone=True),
        Role.WORKER: roles.worker,
    }[role]()
    os.chdir(home)
    os.execve(command[0], command, child_environment({"DAGSTER_HOME": str(home)}))
