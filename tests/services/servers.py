"""Apache Kafka, Tansu on S3, ElasticMQ, Apicurio and SeaweedFS as services of a supervisor, on loopback ports.

What broker and queue acknowledged is in files: ``kill -9`` and another start lose nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import boto3
import psycopg2
import pytest

from headrace.local import broker as tansu
from headrace.local import probes, processes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service
from headrace.local.supervisor import Supervisor

from .fetch import Missing

#: Environment variables that ask for a service: the folder that ``fetch.py`` filled for it.
KAFKA, S3, QUEUE, POSTGRES, REGISTRY, NODE, PROMETHEUS, JDBC = (
    f"HEADRACE_TEST_{name}"
    for name in ("KAFKA", "S3", "QUEUE", "POSTGRES", "REGISTRY", "NODE", "PROMETHEUS", "JDBC")
)
_ASKED = {
    n: os.environ.get(n) for n in (KAFKA, S3, QUEUE, POSTGRES, REGISTRY, NODE, PROMETHEUS, JDBC)
}  # tests run without any HEADRACE_* variable
REGION = "us-east-1"
_KEY = "headrace"  # as id and secret: SeaweedFS takes any

_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"  # any 16 bytes in base64
#: A small heap, and a machine code compiler that is quick to start rather than quick in the end.
_JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_FORMAT_SECONDS = 60


@dataclass(frozen=True)
class Broker:
    """A running broker.

    Attributes:
        name: ``tansu`` or ``kafka``.
        servers: Its ``host:port``.
    """

    name: str
    servers: str

    def needs_kafka(self, what: str) -> None:
        """Skip the calling test on a broker that cannot do something."""
        if self.name != "kafka":
            pytest.skip(f"{self.name} has no {what}")


@dataclass(frozen=True)
class Bucket:
    """A place for a lake, and how delta-rs reaches it."""

    uri: str
    storage_options: dict[str, str]


def asked_for(*services: str) -> None:
    """Skip the calling module unless one of the services is asked for."""
    if not any(_ASKED[name] for name in services):
        pytest.skip("runs in 'make test-services'", allow_module_level=True)


def at_hand(service: str) -> Path:
    """The folder of a service.

    Raises:
        Missing: It was not asked for, or could not be had; says why.
    """
    asked = _ASKED[service]
    if not asked:
        raise Missing(f"{service} is not set: run it by make, which fetches the service")
    folder = Path(asked).absolute()
    if not (folder / "complete").is_file():
        missing = folder / "missing.txt"
        raise Missing(missing.read_text() if missing.is_file() else f"nothing in {folder}: run fetch.py")
    return folder


def fetched(service: str) -> Path:
    """``at_hand``, for fixtures: skips the calling test where it is not."""
    try:
        return at_hand(service)
    except Missing as why:
        pytest.skip(str(why))


def free_ports(count: int) -> list[int]:
    """Different ports below the ephemeral range, free now."""
    ports: list[int] = []
    while len(ports) < count:
        ports.append(processes.pick_port(0, avoid={0, *ports}))
    return ports


def kafka_service(
    jars: Path,
    home: Path,
    *,
    protocol: str = "PLAINTEXT",
    options: Mapping[str, str] | None = None,
    scram: str = "",
) -> tuple[Service, str]:
    """One Kafka node, broker and controller at once (KRaft), with its log below ``home``.

    Args:
        jars: As fetched.
        home: Folder for everything.
        protocol: Of its one listener for clients, which is named so too.
        options: Broker properties besides.
        scram: A user, as Kafka's ``format --add-scram`` takes one.

    Returns:
        The service and its ``host:port``.
    """
    port, controller = free_ports(2)
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{protocol}://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}",
        "advertised.listeners": f"{protocol}://{LOOPBACK}:{port}",
        "inter.broker.listener.name": protocol,
        "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:PLAINTEXT",
        "log.dirs": str(home / "kafka"),
        # one node holds the only copy
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # compaction within the patience of a test and the memory of a small heap
        "log.cleaner.backoff.ms": "100",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "group.initial.rebalance.delay.ms": "0",
        **(options or {}),
    }
    (home / "logs").mkdir(parents=True, exist_ok=True)
    properties = home / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = (*_JAVA, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*")
    subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted", f"--cluster-id={_CLUSTER_ID}",
         f"--config={properties}", *(["--add-scram", scram] if scram else [])],
        check=True, capture_output=True, timeout=_FORMAT_SECONDS,
    )  # fmt: skip
    service = Service(
        name="kafka",
        argv=(*java, "kafka.Kafka", str(properties)),
        env=dict(os.environ),
        log=home / "logs" / "kafka.log",
        cwd=home,
        ready=lambda: _tls_ok(port) if protocol.endswith("SSL") else probes.kafka_ok(port),
        port=port,
        stop_grace=10.0,
    )
    return service, f"{LOOPBACK}:{port}"


def _tls_ok(port: int) -> bool:
    """Whether TLS can be spoken there; whom one speaks to is the test's business."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((LOOPBACK, port), 1.0) as plain, context.wrap_socket(plain):
        return True


def tansu_on_s3(home: Path, endpoint: str) -> tuple[Service, str]:
    """The embedded broker with its log in a bucket of an S3 look-alike.

    Returns:
        The service and its ``host:port``.
    """
    bucket = "tansu"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name=REGION, aws_access_key_id=_KEY, aws_secret_access_key=_KEY
    )
    client.create_bucket(Bucket=bucket)
    client.close()
    access = {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _KEY,
    }
    (home / "logs").mkdir(parents=True, exist_ok=True)
    [port] = free_ports(1)
    service = tansu.broker_service(home, port, dict(os.environ))
    words = list(service.argv)
    words[words.index("--storage-engine") + 1] = f"s3://{bucket}/"
    return replace(service, argv=tuple(words), env={**service.env, **access}), f"{LOOPBACK}:{port}"


def elasticmq_service(jars: Path, home: Path) -> tuple[Service, str]:
    """ElasticMQ, an SQS look-alike, with queues and messages below ``home``.

    Returns:
        The service and its endpoint URL.
    """
    [port] = free_ports(1)
    settings = {
        "node-address.host": LOOPBACK,
        "node-address.port": str(port),
        "rest-sqs.bind-hostname": LOOPBACK,
        "rest-sqs.bind-port": str(port),
        "rest-stats.enabled": "false",
        "aws.region": REGION,
        "queues-storage.enabled": "true",
        "queues-storage.path": str(home / "queues.conf"),
        "messages-storage.enabled": "true",
        # H2 acknowledges before it writes unless it is told not to wait
        "messages-storage.uri": f"jdbc:h2:{home / 'messages'};WRITE_DELAY=0",
    }
    (home / "logs").mkdir(parents=True, exist_ok=True)
    flags = (f"-D{name}={value}" for name, value in settings.items())
    service = Service(
        name="elasticmq",
        argv=(*_JAVA, *flags, "-cp", f"{jars}/*", "org.elasticmq.server.Main"),
        env=dict(os.environ),
        log=home / "logs" / "elasticmq.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, "/?Action=ListQueues"),
        port=port,
        stop_grace=5.0,
    )
    return service, f"http://{LOOPBACK}:{port}"


def registry_service(unpacked: Path, home: Path) -> tuple[Service, str]:
    """Apicurio Registry, whose schemas are in memory, behind its interface for Confluent's clients.

    Returns:
        The service and that interface's URL.
    """
    [port] = free_ports(1)
    [program] = unpacked.glob("apicurio-registry-app-*-runner.jar")
    (home / "logs").mkdir(parents=True, exist_ok=True)
    flags = (f"-Dquarkus.http.host={LOOPBACK}", f"-Dquarkus.http.port={port}")
    path = "/apis/ccompat/v7"
    service = Service(
        name="registry",
        argv=(*_JAVA, *flags, "-jar", str(program)),
        env=dict(os.environ),
        log=home / "logs" / "registry.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, f"{path}/subjects"),
        port=port,
        stop_grace=5.0,
    )
    return service, f"http://{LOOPBACK}:{port}{path}"


def postgres_programs() -> Path:
    """Folder with ``initdb`` and ``postgres``: what was fetched, else what the system has.

    Raises:
        Missing: Neither; says why.
    """
    try:
        found = sorted(at_hand(POSTGRES).glob("*/*/bin/initdb"))
        return found[-1].parent
    except Missing as why:
        installed = [
            *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
            *Path("/opt/homebrew/bin").glob("initdb"),
        ]
        on_path = shutil.which("postgres")
        if not installed and not on_path:
            raise Missing(f"there is no Postgres here, and {why}") from None
        return installed[-1].parent if installed else Path(str(on_path)).resolve().parent


@contextmanager
def postgres(programs: Path, password: str) -> Iterator[str]:
    """A Postgres server that asks for passwords, with its data in a folder of its own below the temporary one.

    It does not run as root, so root runs it as ``nobody``. Yields the URL of a database, with its password.
    """
    nobody: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    [port] = free_ports(1)
    with TemporaryDirectory(prefix="headrace-postgres-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "password").write_text(password)
        if nobody:
            for place in (home, home / "password"):
                shutil.chown(place, "nobody")
        if nobody and not _may_run(programs, nobody):
            whole = next((p for p in programs.parents if (p / "complete").is_file()), programs.parent)
            copy = shutil.copytree(whole, home / "installed", symlinks=True)
            programs = copy / programs.relative_to(whole)
        options = {"cwd": home, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **nobody}
        subprocess.run(
            [programs / "initdb", "-D", home / "data", "-U", "headrace", "-A", "scram-sha-256", "-N",
             f"--pwfile={home / 'password'}", "-E", "UTF8", "--locale=C"],
            check=True, timeout=60, stderr=subprocess.PIPE, **options,
        )  # fmt: skip
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", home / "data", "-h", LOOPBACK, "-p", str(port), "-k", home, "-F"],
                stderr=log, **options,
            )  # fmt: skip
        try:
            _until_it_asks_for_a_password(server, port, home / "log")
            yield f"postgresql://headrace:{quote(password, safe='')}@{LOOPBACK}:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _may_run(programs: Path, user: dict[str, Any]) -> bool:
    try:
        subprocess.run([programs / "initdb", "--version"], check=True, capture_output=True, cwd="/", **user)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _until_it_asks_for_a_password(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            psycopg2.connect(
                host=LOOPBACK, port=port, user="nobody", password="x", dbname="x", connect_timeout=5
            )
        except psycopg2.OperationalError as error:
            if "password" in str(error):
                return
        time.sleep(0.05)
    raise AssertionError(f"Postgres does not start: {log.read_text()[-2000:]}")


@contextmanager
def seaweedfs(package: Path, home: Path) -> Iterator[str]:
    """SeaweedFS' master, volume server, filer and S3 gateway in one process, without authentication.

    Yields its endpoint URL.
    """
    parts = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(parts))
    flags = {
        "dir": str(home / "data"),
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        **{f"{part}.port": str(ports[2 * n]) for n, part in enumerate(parts)},
        **{f"{part}.port.grpc": str(ports[2 * n + 1]) for n, part in enumerate(parts)},
        "s3": "true",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "64",
        "volume.max": "16",
        "volume.preStopSeconds": "0",
    }
    for folder in ("data", "logs", "tmp"):
        (home / folder).mkdir(parents=True)
    binary = package / "bin" / "weed"
    if not os.access(binary, os.X_OK):
        binary = Path(shutil.copy(binary, home / "weed"))
        binary.chmod(0o755)
    port = ports[2 * parts.index("s3")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    service = Service(
        name="seaweedfs",
        argv=(str(binary), "server", *(f"-{name}={value}" for name, value in flags.items())),
        env={**environment, "TMPDIR": str(home / "tmp")},  # its logs go there
        log=home / "logs" / "seaweedfs.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, "/healthz"),
        port=port,
        stop_grace=2.0,
    )
    try:
        with Supervisor([service]):
            yield f"http://{LOOPBACK}:{port}"
    finally:  # it leaves sockets behind, at a place that it does not let us choose
        for number in ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket.unlink()
