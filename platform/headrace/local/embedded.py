"""Start and stop broker, queue, ClickHouse endpoint and cache together."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from headrace.config.settings import child_environment, load_settings
from headrace.config.stack_env import Damaged
from headrace.core.errors import Fatal
from headrace.core.kept_secret import kept_secret
from headrace.local import broker, cache, collecting, probes, processes, queue, serving, stack_files
from headrace.local.free_ports import start_on_free_ports
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service
from headrace.local.supervisor import Supervisor
from headrace.models.exposed import beside, hidden

CLICKHOUSE = "clickhouse"
CLICKHOUSE_USER = "headrace"
CLICKHOUSE_DATABASE = "analytics"
USUAL_PORTS = {
    broker.NAME: broker.USUAL_PORT,
    queue.NAME: queue.USUAL_PORT,
    CLICKHOUSE: 8123,
    cache.NAME: cache.USUAL_PORT,
}
#: What runs in front of the backing services where it is asked for, with the port that the settings name.
FRONTS = {collecting.NAME: collecting.usual_port, serving.NAME: serving.usual_port}

TOPICS = {"analytics_events": 4, "metrics": 4}
QUEUES = ("analytics_events", "metrics")

#: Partitions by topic, and names of queues.
Wanted = tuple[Mapping[str, int], tuple[str, ...]]

_KEEP_SECONDS = 2.0
_PREVIOUS_ENDS_WITHIN = 20.0  # seconds; longer than any service's grace


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports by service. A number requests exactly that port; None takes the usual one, or any free one."""

    broker: int | None = None
    queue: int | None = None
    clickhouse: int | None = None
    cache: int | None = None
    collector: int | None = None
    serve: int | None = None

    def asked(self, service: str) -> int | None:
        """Return the requested port of a service."""
        port: int | None = getattr(self, service)
        return port


@dataclass(frozen=True, slots=True)
class Reader:
    """The ClickHouse user of BI tools, who only reads.

    Attributes:
        name: Its name.
        password: Its password.
        database: What it reads: the marts.
        hidden: Tables there that it does not see.
        beside: What it reads of other databases, each with its database.
    """

    name: str
    password: str
    database: str = CLICKHOUSE_DATABASE
    hidden: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()


class AlreadyRuns(Fatal):
    """Another process runs the stack of this folder."""


class EmbeddedStack:
    """Context manager that runs the backing services of one folder.

    ``with EmbeddedStack(home) as endpoints`` gives the environment variables that point Headrace, dbt and AWS clients
    at the services. Other commands find the services by ``home/stack.env``. ClickHouse keeps its data below ``home``;
    broker and queue start empty.

    Args:
        home: Folder for data, logs and the files named in ``stack_files``. Created if missing.
        ports: Ports to listen on, always on 127.0.0.1.
        topics: Partitions by topic, created whenever the broker starts.
        queues: Queue names, created whenever the queue service starts.
        wanted: Returns topics and queues as they should be by now, asked again and again: those that are new are
            created.
        report: Receives a line whenever a person should know of a change.
        door: Run the collector in front of the broker, too: the settings that it has besides, as environment
            variables; None for none. It is no backing service: its failure is only reported.
        door_awaited: The entry waits until the collector takes events.
        numbers: Run ``headrace serve`` beside the warehouse, too, with settings as for the door; None for none.
        handles_sigterm: The caller stops the stack in order when this process gets SIGTERM. Then
            ``headrace stack down`` may send it.

    Raises:
        AlreadyRuns: On entry.
        Fatal: On entry: a requested port is taken, the folder cannot be written, or a service does not become ready.
            Everything that was started is stopped again.
    """

    def __init__(
        self,
        home: Path,
        *,
        ports: Ports | None = None,
        topics: Mapping[str, int] | None = None,
        queues: tuple[str, ...] = QUEUES,
        wanted: Callable[[], Wanted] | None = None,
        report: Callable[[str], None] = lambda _: None,
        door: Mapping[str, str] | None = None,
        door_awaited: bool = True,
        numbers: Mapping[str, str] | None = None,
        handles_sigterm: bool = False,
    ) -> None:
        self.home = home.expanduser().absolute()
        self.endpoints: dict[str, str] = {}
        self._ports, self._report, self._handles_sigterm = ports or Ports(), report, handles_sigterm
        fronts = {collecting.NAME: door, serving.NAME: numbers}
        self._names = (*USUAL_PORTS, *(name for name, own in fronts.items() if own is not None))
        self._numbers = dict(numbers or {})
        self._door, self._door_awaited = dict(door or {}), door_awaited
        self._topics, self._queues = dict(TOPICS if topics is None else topics), queues
        self._wanted = wanted
        self._password, self._cache_password = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._reader = Reader("", "")
        self._chosen: dict[str, int] = {}
        self._supervisor: Supervisor | None = None
        self._lock: int | None = None
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._asked_to_stop = False
        self._state: Literal["starting", "running", "stopping"] = "starting"
        self._started_at = time.time()

    def __enter__(self) -> dict[str, str]:
        self._lock = self._acquire()
        try:
            stack_files.remove(self.home)
            with stack_files.writing(self.home):
                (self.home / "logs").mkdir(exist_ok=True)
                self._write_info()
            self._reader = reader_of(self.home)
            self._start()
            with stack_files.writing(self.home):
                self._state = "running"
                self._write_info()
                stack_files.write_env(self.home, self.endpoints)
            threading.Thread(target=self._keep_files, name="keep-stack-files", daemon=True).start()
            if self._wanted is not None:
                threading.Thread(
                    target=self._follow, args=(self._wanted,), name="follow-streams", daemon=True
                ).start()
        except BaseException:
            self._stop()
            raise
        return self.endpoints

    def __exit__(self, *_: object) -> None:
        self._stop()

    def watch(self) -> None:
        """Block until ``request_stop``.

        Raises:
            ServiceFailed: A service died too often.
        """
        assert self._supervisor is not None, "enter the context first"
        self._supervisor.watch()

    def request_stop(self, *_: object) -> None:
        """End ``watch``, or the entry into the context. Safe in a signal handler."""
        self._asked_to_stop = True
        if self._supervisor:
            self._supervisor.request_stop()

    def _acquire(self) -> int:
        info = stack_files.read_info(self.home)
        patience = 1.0 if info and supervisor_lives(info) else _PREVIOUS_ENDS_WITHIN
        fd = stack_files.wait_for_lock(self.home, patience)
        if fd is None:
            raise AlreadyRuns(f"a stack runs in {self.home} already; see it with 'headrace stack status'")
        return fd

    def _start(self) -> None:
        asked = {name for name in self._names if self._ports.asked(name) is not None}
        start_on_free_ports(self._on_ports, asked, self._report)

    def _on_ports(self, lost: Collection[int]) -> Supervisor:
        """Make the services on ports that are free now."""
        self._chosen = {name: self._choose(name, lost) for name in self._names}
        self.endpoints = self._endpoints()
        supervisor = Supervisor(
            self._services(),
            report=self._report,
            changed=self._note,
            keep_open=(self._lock,) if self._lock is not None else (),
        )
        self._supervisor = supervisor
        if self._asked_to_stop:
            supervisor.request_stop()
        return supervisor

    def _choose(self, service: str, lost: Collection[int]) -> int:
        asked = self._ports.asked(service)
        if asked is None:
            usual = USUAL_PORTS.get(service) or FRONTS[service]()
            return processes.pick_port(usual, {*lost, *self._asked_ports()})
        processes.require_free(asked, service)
        return asked

    def _asked_ports(self) -> set[int]:
        return {port for name in self._names if (port := self._ports.asked(name))}

    def _services(self) -> list[Service]:
        environment = child_environment()
        bootstrap = self.endpoints["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"]
        sqs_url = self.endpoints["HEADRACE_SQS_ENDPOINT_URL"]
        found = [
            broker.broker_service(
                self.home,
                self._chosen[broker.NAME],
                environment,
                lambda: broker.create_topics(bootstrap, self._topics),
            ),
            queue.queue_service(
                self.home,
                self._chosen[queue.NAME],
                environment,
                lambda: queue.create_queues(sqs_url, self._queues),
            ),
            clickhouse_service(
                self.home, self._chosen[CLICKHOUSE], environment, self._password, self._reader
            ),
            cache.cache_service(self.home, self._chosen[cache.NAME], environment, self._cache_password),
        ]
        if (port := self._chosen.get(collecting.NAME)) is not None:
            own = {**environment, **self.endpoints, **self._door}
            found.append(collecting.collector_service(self.home, port, own, awaited=self._door_awaited))
        if (port := self._chosen.get(serving.NAME)) is not None:
            own = {**environment, **self.endpoints, **self._numbers}
            found.append(serving.serving_service(self.home, port, own, CLICKHOUSE))
        return found

    def _endpoints(self) -> dict[str, str]:
        found = {
            "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{self._chosen[broker.NAME]}",
            "HEADRACE_SQS_ENDPOINT_URL": f"http://{LOOPBACK}:{self._chosen[queue.NAME]}",
            "HEADRACE_SQS_REGION": queue.REGION,
            "AWS_ACCESS_KEY_ID": queue.DUMMY_KEY,
            "AWS_SECRET_ACCESS_KEY": queue.DUMMY_KEY,
            "HEADRACE_CLICKHOUSE_HOST": LOOPBACK,
            "HEADRACE_CLICKHOUSE_PORT": str(self._chosen[CLICKHOUSE]),
            "HEADRACE_CLICKHOUSE_USER": CLICKHOUSE_USER,
            "HEADRACE_CLICKHOUSE_PASSWORD": self._password,
            "HEADRACE_BI_USER": self._reader.name,
            "HEADRACE_BI_PASSWORD": self._reader.password,
            "HEADRACE_LAKE_URI": str(self.home / "lake"),
            "HEADRACE_CACHE_URL": cache.cache_url(self._chosen[cache.NAME], self._cache_password),
        }
        if (port := self._chosen.get(collecting.NAME)) is not None:
            found["HEADRACE_COLLECTOR_URL"] = collecting.address(port)
        if (port := self._chosen.get(serving.NAME)) is not None:
            found["HEADRACE_SERVE_URL"] = serving.address(port)
        return found

    def _keep_files(self) -> None:
        """Write ``stack.env`` and ``stack.json`` again where they were removed or damaged.

        Commands find this stack by the first, and ``headrace stack down`` by the second.
        """
        while not self._ended.wait(_KEEP_SECONDS):
            try:
                lost_env = stack_files.read_env(self.home) != self.endpoints
            except Damaged:
                lost_env = True
            with contextlib.suppress(OSError):
                if stack_files.read_info(self.home) is None:
                    self._write_info()
                with self._writing:
                    if lost_env and self._lock is not None and self._state == "running":
                        stack_files.write_env(self.home, self.endpoints)
                        self._report(
                            f"{stack_files.env_file(self.home)} was lost or damaged, and is written again"
                        )

    def _follow(self, wanted: Callable[[], Wanted]) -> None:
        """Create the topics and queues of streams that are added while the stack runs."""
        said = ""
        while not self._ended.wait(_KEEP_SECONDS):
            try:
                topics, queues = wanted()
                topics = {name: n for name, n in topics.items() if name not in self._topics}
                queues = tuple(name for name in queues if name not in self._queues)
                if not topics and not queues:
                    continue
                broker.create_topics(self.endpoints["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"], topics)
                queue.create_queues(self.endpoints["HEADRACE_SQS_ENDPOINT_URL"], queues)
            except (
                Exception
            ) as error:  # the next look tries again; a file of the user's own may raise anything
                if str(error) != said:
                    said = str(error)
                    self._report(f"topics and queues of new streams were not created: {said}")
            else:
                self._topics, self._queues = {**self._topics, **topics}, (*self._queues, *queues)
                self._report(f"created for new streams: {', '.join((*topics, *queues))}")

    def _note(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end running services
            self._write_info()

    def _write_info(self) -> None:
        with self._writing:
            if self._lock is None:  # a thread that outlived the stop no longer owns the folder
                return
            statuses = self._supervisor.status() if self._supervisor else []
            info = {
                "state": self._state,
                "supervisor": {"pid": os.getpid(), "created": processes.created(os.getpid())},
                "handles_sigterm": self._handles_sigterm,
                "started_at": self._started_at,
                "services": [
                    {**asdict(status), "address": f"{LOOPBACK}:{self._chosen[status.name]}"}
                    for status in statuses
                ],
            }
            stack_files.write_info(self.home, info)

    def _stop(self) -> None:
        self._ended.set()
        with self._writing:
            self._state = "stopping"
        with contextlib.suppress(OSError):
            stack_files.env_file(self.home).unlink(missing_ok=True)  # first, so that no new client comes
        if self._supervisor:
            self._supervisor.stop()
        with self._writing:
            stack_files.remove(self.home)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def reader_of(home: Path) -> Reader:
    """Return the reader of a stack: as the settings say, with the password in ``home`` where they have none.

    Raises:
        Fatal: A setting is wrong, or the password cannot be kept.
    """
    settings = load_settings(with_stack=False, home=home)
    password = settings.bi_password.get_secret_value() or kept_secret(settings.bi_password_file)
    return Reader(settings.bi_user, password, settings.dbt_schema, hidden(settings), beside(settings))


def clickhouse_service(
    home: Path, port: int, environment: Mapping[str, str], password: str, reader: Reader | None = None
) -> Service:
    """Describe the ClickHouse endpoint on ``127.0.0.1:port`` as a service, with its data in ``home/clickhouse``."""
    arguments = [
        ("path", str(home / "clickhouse")),
        ("host", LOOPBACK),
        ("port", str(port)),
        ("user", CLICKHOUSE_USER),
        ("database", CLICKHOUSE_DATABASE),
    ]
    if reader is not None:
        arguments += [("reader", reader.name), ("reads", reader.database)]
        arguments += [("hide", name) for name in reader.hidden]
        arguments += [("show", ".".join(one)) for one in reader.beside]
    flags = [word for name, value in arguments for word in (f"--{name}", value)]
    # Not arguments, because every user of the machine can read arguments.
    secret = {
        "HEADRACE_CLICKHOUSE_PASSWORD": password,
        "HEADRACE_BI_PASSWORD": reader.password if reader else "",
    }
    return Service(
        name=CLICKHOUSE,
        argv=(sys.executable, "-P", "-m", "headrace.local.clickhouse", *flags),
        env={**environment, **secret},
        log=home / "logs" / f"{CLICKHOUSE}.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, "/ping"),
        port=port,
        stop_grace=10.0,  # to finish a write
    )


def supervisor_lives(info: Mapping[str, Mapping[str, float]]) -> bool:
    """Tell whether the process that wrote ``stack.json`` still runs. Its start time rules out a reused pid."""
    pid, created = int(info["supervisor"]["pid"]), info["supervisor"]["created"]
    return processes.created(pid) == created
