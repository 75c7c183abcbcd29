"""The embedded SQS queue: ministack below ``queue_server.py``.

Messages live in memory and are gone when it stops. ministack can write them out, but only at an orderly stop;
after a crash the file would bring deleted messages back, and a message lost is more honest than one doubled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from headrace.core.errors import Fatal, Retriable
from headrace.local import probes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service

NAME = "queue"
USUAL_PORT = 4566
REGION = "us-east-1"
DUMMY_KEY = "headrace"  # as id and secret: the emulator takes any, and real credentials must not leak to it

_ACCOUNT = "000000000000"


def queue_service(
    home: Path, port: int, environment: Mapping[str, str], prepare: Callable[[], object] | None = None
) -> Service:
    """The queue on ``127.0.0.1:port``."""
    env = {name: value for name, value in environment.items() if not name.startswith(("AWS_", "MINISTACK_"))}
    env |= {
        "SERVICES": "sqs",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": LOOPBACK,  # queue URLs name this host
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": _ACCOUNT,
        "PERSIST_STATE": "0",
        "LOG_LEVEL": "WARNING",
    }
    return Service(
        name=NAME,
        argv=(sys.executable, "-P", "-m", "headrace.local.queue_server", "--port", str(port)),
        env=env,
        log=home / "logs" / f"{NAME}.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, "/_ministack/health"),
        prepare=prepare,
        port=port,
        stop_grace=2.0,
    )


def sqs_client(endpoint_url: str) -> Any:
    """A boto3 client with dummy credentials, whatever the environment or ~/.aws say.

    Creating one takes 0.2 s; it is safe to share between threads.
    """
    import boto3  # a quarter of a second, which only whoever needs a client should pay
    from botocore.config import Config

    session = boto3.Session(aws_access_key_id=DUMMY_KEY, aws_secret_access_key=DUMMY_KEY, region_name=REGION)
    config = Config(max_pool_connections=16, proxies={}, retries={"max_attempts": 3, "mode": "standard"})
    return session.client("sqs", endpoint_url=endpoint_url, config=config)


def create_queues(endpoint_url: str, names: Iterable[str]) -> dict[str, str]:
    """Create the queues that do not exist yet, with SQS's default attributes.

    Returns:
        The URL of each queue by name.

    Raises:
        Retriable: The queue service does not answer.
        Fatal: It refused a name.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = sqs_client(endpoint_url)
    try:
        return {name: client.create_queue(QueueName=name)["QueueUrl"] for name in names}
    except ClientError as error:
        raise Fatal(f"a queue could not be created on {endpoint_url}: {error}") from error
    except BotoCoreError as error:
        raise Retriable(f"no SQS answers on {endpoint_url}: {error}") from error
    finally:
        client.close()
