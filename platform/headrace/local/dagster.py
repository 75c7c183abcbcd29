"""Describe Dagster's processes as supervised services: code location, webserver, daemon.

A deployment runs the same three. ``dagster dev`` would load the code location once for itself and once for each of
them.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from headrace.config.shipped import prepare_dagster
from headrace.local.processes import LOOPBACK, pick_port, require_free
from headrace.local.service import Service

USUAL_UI_PORT = 3000
_MODULE = "headrace.orchestration.definitions"
_SERVER = "headrace.orchestration.runtime.code_server"
_WORKSPACE = """\
load_from:
  - grpc_server:
      host: {host}
      port: {port}
      location_name: headrace
"""


def dagster_services(
    home: Path,
    environment: Mapping[str, str],
    ui_port: int | None = None,
    *,
    reloadable: bool = False,
) -> tuple[list[Service], str]:
    """Describe Dagster's services.

    Args:
        home: Dagster's storage goes to ``home/dagster``.
        environment: Whole environment of the processes.
        ui_port: Exactly this port for the UI. None takes 3000, or any free port if 3000 is taken.
        reloadable: Let the UI's *Reload* find new pipelines; costs one more process.

    Returns:
        The services, and the address of the UI.

    Raises:
        Fatal: The requested port is taken.
    """
    require_ui_port(ui_port)
    dagster_home = home / "dagster"
    prepare_dagster(dagster_home)
    web = ui_port if ui_port is not None else pick_port(USUAL_UI_PORT, set())
    code = pick_port(4266, {web})
    workspace = dagster_home / "workspace.yaml"
    workspace.write_text(_WORKSPACE.format(host=LOOPBACK, port=code))
    url = f"http://{LOOPBACK}:{web}"
    # for links in alerts and for quick runs, unless the environment says otherwise
    own = {"HEADRACE_UI_URL": url, "HEADRACE_FORK_RUNS": "true"}
    env = {**own, **environment, "DAGSTER_HOME": str(dagster_home)}
    tool, quiet = Path(sys.executable).with_name("dagster"), ("--log-level", "warning")
    logs = home / "logs"
    grpc = ("--module-name", _MODULE, "--host", LOOPBACK, "--port", str(code))
    how = ("--reloadable",) if reloadable else ()
    return [
        Service(
            name="code location",
            argv=(sys.executable, "-m", _SERVER, *how, *grpc, "--location-name", "headrace", *quiet),
            env=env,
            cwd=dagster_home,
            log=logs / "code-location.log",
            ready=lambda: True,  # it listens only once the definitions are loaded
            port=code,
            ready_within=120,
            stop_grace=8,
        ),
        Service(
            name="webserver",
            argv=(f"{tool}-webserver", "--host", LOOPBACK, "--port", str(web), "-w", str(workspace), *quiet),
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
            argv=(f"{tool}-daemon", "run", "-w", str(workspace), *quiet),
            env=env,
            cwd=dagster_home,
            log=logs / "daemon.log",
            ready=lambda: True,
            needs=("code location",),
            ready_within=120,
        ),
    ], url


def require_ui_port(port: int | None) -> None:
    """Check before anything starts that the UI can have its port.

    Raises:
        Fatal: The port was requested and is taken.
    """
    if port is not None:
        require_free(port, "Dagster UI")


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
