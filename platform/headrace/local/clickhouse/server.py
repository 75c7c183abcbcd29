"""Run the server process: its command line, the HTTP server, and an orderly end."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from cheroot import wsgi

from headrace.core.errors import Fatal
from headrace.local.clickhouse import config
from headrace.local.clickhouse.app import CLIENT_SOCKET, Application, User
from headrace.local.clickhouse.engine import Engine
from headrace.local.clickhouse.sandbox import confine

logger = logging.getLogger(__name__)

_THREADS = 32  # measured: more connections gain nothing on two cores
_GRACE_SECONDS = 1.0  # queries may run on for this long, then they are killed
_JOIN_SECONDS = 4


class _Gateway(wsgi.Gateway_10):
    """Give the application the client's socket, so that it notices a disconnect."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ[CLIENT_SOCKET] = self.req.conn.socket
        return environ


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line. It holds no passwords, because every process can read it."""
    parser = argparse.ArgumentParser(
        prog="python -m headrace.local.clickhouse",
        description="Embedded ClickHouse with its HTTP interface. The password of --user is read from "
        "HEADRACE_CLICKHOUSE_PASSWORD, that of --reader from HEADRACE_BI_PASSWORD; without that there is no reader.",
    )
    parser.add_argument("--path", type=Path, required=True, help="data folder, created if missing")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123, help="0 picks a free one")
    parser.add_argument("--user", default="headrace")
    parser.add_argument("--database", default="headrace", help="where clients land that name none")
    parser.add_argument("--reader", default="headrace_bi", help="user who only reads")
    parser.add_argument("--reads", help="database that --reader reads; default: --database")
    parser.add_argument(
        "--hide", action="append", default=[], help="table that --reader does not see; may be repeated"
    )
    parser.add_argument(
        "--show",
        action="append",
        default=[],
        help="DATABASE.TABLE that --reader reads besides; may be repeated",
    )
    parser.add_argument("--max-queries", type=int, default=16, help="queries that run at once")
    parser.add_argument(
        "--grant",
        action="append",
        default=[],
        choices=config.SOURCES,
        type=str.upper,
        help="let clients read and write this kind of outside source; may be repeated",
    )
    return parser.parse_args(arguments)


def serve(options: argparse.Namespace, password: str, reader_password: str = "") -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: The command line.
        password: Password of the user.
        reader_password: Password of the reader; empty for no reader.

    Raises:
        Fatal: The directory or the port is taken, or an option is wrong.
    """
    if not password:
        raise Fatal("HEADRACE_CLICKHOUSE_PASSWORD is not set; set it to the password that clients will send")
    if not re.fullmatch(r"[A-Za-z_]\w*", options.database, re.ASCII) or options.database in (
        "default",
        "system",
    ):
        raise Fatal(
            f"--database {options.database} cannot be used; choose a name other than default and system"
        )
    if reader_password and options.reader == options.user:
        raise Fatal(f"--reader {options.reader} is --user, too; choose another name")
    shown = [part for one in options.show for part in one.split(".", 1)]
    for name in (*options.hide, *shown, options.reads or options.database):
        if not re.fullmatch(r"\w+", name, re.ASCII):
            raise Fatal(f"{name!r} of --hide, --show or --reads is no name of a table or database")
    stopping = Signals(signal.SIGTERM, signal.SIGINT)
    directory = options.path.expanduser().absolute()
    engine = Engine(directory, options.database, options.max_queries)
    engine.lock()
    _check_port(options.host, options.port)
    spool = _fresh(directory / "spool")
    os.putenv("TMPDIR", str(spool))  # the engine's own temporary files
    os.chdir(spool)  # a folder without config.xml, which the engine would obey
    users, reading = [User(options.user, password, options.database)], None
    if reader_password:
        beside = tuple((database, name) for database, _, name in (one.partition(".") for one in options.show))
        reading = config.Reading(options.reads or options.database, tuple(options.hide), beside)
        users.append(User(options.reader, reader_password, reading.database, config.READER))
    place = _made(directory / "config")
    settings = config.write(place, directory / "data", _limits(), tuple(options.grant), reading)
    packages = [Path(__file__).parents[2], *(Path(entry) for entry in sys.path if entry)]
    sandbox = confine(directory, readable=packages, network=bool(options.grant))
    engine.open(settings)
    application = Application(engine, users, spool)
    server = wsgi.Server(
        (options.host, options.port),
        application,
        numthreads=_THREADS,
        max=_THREADS * 2,
        request_queue_size=256,
        timeout=600,
        shutdown_timeout=_JOIN_SECONDS,
        server_name="Headrace",
    )
    server.gateway = _Gateway
    server.expiration_interval = 0.2  # seconds until the accepting thread notices a stop
    try:
        server.prepare()
    except OSError as error:
        engine.close()
        raise _taken(options.host, options.port, error) from None
    thread = threading.Thread(target=server.serve, name="accept", daemon=True)
    thread.start()
    ready = {
        "event": "ready",
        "host": options.host,
        "port": server.bind_addr[1],
        "version": engine.version,
        "sandbox": sandbox,
    }
    print(json.dumps(ready), flush=True)
    if sandbox == "none":
        logger.warning("this system offers no Landlock: clients are held by grants and statement checks only")
    stopping.wait()
    _stop(server, engine)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m headrace.local.clickhouse``."""
    from headrace.config.settings import load_settings

    options = parse_arguments(arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        found = load_settings(with_stack=False)
        serve(options, found.clickhouse_password.get_secret_value(), found.bi_password.get_secret_value())
    except Fatal as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class Signals:
    """Wake the main thread on signals, whichever thread the kernel delivers them to.

    Python runs handlers in the main thread alone. While that thread waits for a lock, it would not
    notice a signal that one of the engine's threads gets.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def wait(self) -> None:
        """Wait until one of the signals has come; an earlier one counts."""
        self._reader.recv(1)


def _stop(server: Any, engine: Engine) -> None:
    """Refuse new work, let queries end for a moment, kill the rest, and close the data."""

    def kill_until_done() -> None:
        while not ended.wait(_GRACE_SECONDS):
            engine.kill_all()

    ended = threading.Event()
    killer = threading.Thread(target=kill_until_done, name="killer", daemon=True)
    killer.start()
    server.stop()
    ended.set()
    killer.join()
    engine.close()


def _limits() -> config.Limits:
    import psutil

    return config.Limits.of_machine(psutil.virtual_memory().total, os.cpu_count() or 1)


def _check_port(host: str, port: int) -> None:
    """Check that the port is free before the engine starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        raise _taken(host, port, error) from None


def _taken(host: str, port: int, error: OSError) -> Fatal:
    if isinstance(error, socket.gaierror):
        return Fatal(f"host {host} is unknown; choose another with --host")
    if "in use" in str(error):
        return Fatal(f"port {port} on {host} is taken; choose another with --port")
    return Fatal(
        f"port {port} on {host} cannot be used: {error.strerror or error}; choose another with --port"
    )


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _fresh(directory: Path) -> Path:
    """Make an empty folder; delete leftovers of a killed process."""
    shutil.rmtree(directory, ignore_errors=True)
    return _made(directory)
