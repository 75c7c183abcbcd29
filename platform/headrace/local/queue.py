"""Run the embedded SQS queue: ministack below ``queue_server.py``.

Messages live in memory and are lost when it stops. ministack can save them, but only at an orderly stop. After a crash
the saved file would return deleted messages, and a lost message is more honest than a duplicate.
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
DUMMY_KEY = "headrace"  # id and secret: the emulator takes any, and real ones must not leak to it

_ACCOUNT = "000000000000"


def queue_service(
    home: Path, port: int, environment: Mapping[str, str], prepare: Callable[[], object] | None = None
) -> Service:
    """Describe the queue on ``127.0.0.1:port`` as a service."""
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
    """Make a boto3 client with dummy credentials, regardless of the environment and ~/.aws.

    This takes 0.2 s. Threads may share the client.
    """
    import boto3  # takes 0.25 s, so only where a client is made
    from botocore.config import Config

    session = boto3.Session(aws_access_key_id=DUMMY_KEY, aws_secret_access_key=DUMMY_KEY, region_name=REGION)
    config = Config(max_pool_connections=16, proxies={}, retries={"max_attempts": 3, "mode": "standard"})
    return session.client("sqs", endpoint_url=endpoint_url, config=config)


def create_queues(endpoint_url: str, names: Iterable[str]) -> dict[str, str]:
    """Create the missing queues with SQS's default attributes.

    Returns:
        URL of each queue by name.

    Raises:
        Retriable: The queue service does not answer.
        Fatal: The service refuses a name.
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
