"""Describe Dagster's processes as supervised services: code location, webserver, daemon.

A deployment runs the same three. ``dagster dev`` would load the code location once for itself and once for each of
them.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from headrace.config import roles
from headrace.config.shipped import prepare_dagster
from headrace.local.free_ports import start_on_free_ports
from headrace.local.processes import LOOPBACK, pick_port, require_free
from headrace.local.service import Service, Status
from headrace.local.supervisor import Supervisor

USUAL_UI_PORT = 3000
_WEBSERVER = "webserver"


class Dagster:
    """Dagster's processes, once ``start`` has been called.

    Args:
        home: Dagster's storage goes to ``home/dagster``.
        environment: Whole environment of the processes.
        ui_port: Exactly this port for the UI. None takes 3000, or any free port if 3000 is taken.
        reloadable: Let the UI's *Reload* find new pipelines; costs one more process.
        report: Receives a line whenever a process dies or returns, or loses its port to another.

    Attributes:
        ui: Address of the UI, known once ``start`` has returned.

    Raises:
        Fatal: The requested port is taken.
    """

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        ui_port: int | None = None,
        *,
        reloadable: bool = False,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        require_ui_port(ui_port)
        self.ui = ""
        self._home, self._environment, self._ui_port = home, environment, ui_port
        self._reloadable, self._report = reloadable, report
        self._supervisor: Supervisor | None = None
        self._asked_to_stop = False

    def start(self) -> None:
        """Start the processes and return when every one is ready.

        Raises:
            ServiceFailed: A process does not become ready.
            Fatal: The port that was asked for is taken.
        """
        asked = {_WEBSERVER} if self._ui_port is not None else set()
        start_on_free_ports(self._on_ports, asked, self._report)

    def watch(self) -> None:
        """Block until ``request_stop``.

        Raises:
            ServiceFailed: A process died too often.
        """
        assert self._supervisor is not None, "start it first"
        self._supervisor.watch()

    def request_stop(self, *_: object) -> None:
        """Make ``start`` or ``watch`` return. Safe in a signal handler and from any thread."""
        self._asked_to_stop = True
        if self._supervisor:
            self._supervisor.request_stop()

    def stop(self) -> None:
        """Stop all processes. Idempotent."""
        if self._supervisor:
            self._supervisor.stop()

    def status(self) -> list[Status]:
        """Return the present status of every process."""
        return self._supervisor.status() if self._supervisor else []

    def _on_ports(self, lost: Collection[int]) -> Supervisor:
        web = self._ui_port if self._ui_port is not None else pick_port(USUAL_UI_PORT, lost)
        # no usual one: gRPC sets SO_REUSEPORT, so a second server binds a port that is taken without an error, and the
        # runs of one installation go to the code of another
        code = pick_port(None, {*lost, web})
        services = _services(self._home, self._environment, web, code, reloadable=self._reloadable)
        self.ui = _ui(web)
        self._supervisor = Supervisor(services, report=self._report)
        if self._asked_to_stop:
            self._supervisor.request_stop()
        return self._supervisor


def _services(
    home: Path, environment: Mapping[str, str], web: int, code: int, *, reloadable: bool
) -> list[Service]:
    dagster_home = home / "dagster"
    prepare_dagster(dagster_home)
    workspace = roles.write_workspace(dagster_home, LOOPBACK, code)
    url = _ui(web)
    # for links in alerts and for quick runs, unless the environment says otherwise
    own = {"HEADRACE_UI_URL": url, "HEADRACE_FORK_RUNS": "true"}
    env = {**own, **environment, "DAGSTER_HOME": str(dagster_home)}
    logs = home / "logs"
    return [
        Service(
            name="code location",
            argv=roles.code(LOOPBACK, code, reloadable=reloadable),
            env=env,
            cwd=dagster_home,
            log=logs / "code-location.log",
            ready=lambda: True,  # it listens only once the definitions are loaded
            port=code,
            ready_within=120,
            stop_grace=8,
        ),
        Service(
            name=_WEBSERVER,
            argv=roles.webserver(LOOPBACK, web, workspace),
            env=env,
            cwd=dagster_home,
            log=logs / "webserver.log",
            ready=lambda: _answers(f"{url}/server_info"),
            port=web,
            needs=("code location",),
            ready_within=120,
        ),
        Service(
            name="daemon",
            argv=roles.daemon(workspace),
            env=env,
            cwd=dagster_home,
            log=logs / "daemon.log",
            ready=lambda: True,
            needs=("code location",),
            ready_within=120,
        ),
    ]


def require_ui_port(port: int | None) -> None:
    """Check before anything starts that the UI can have its port.

    Raises:
        Fatal: The port was requested and is taken.
    """
    if port is not None:
        require_free(port, "Dagster UI")


def _ui(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
