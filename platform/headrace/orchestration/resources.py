"""Resources of assets and sensors: streams, whose AWS clients are made like those of dagster-aws' resources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

from headrace.config.settings import Settings, settings
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream

_kept: dict[str, Stream] = {}
_locks: dict[str, Lock] = {}
_guard = Lock()


class SqsResource(ConfigurableResource):  # type: ignore[type-arg]
    """An SQS client, configured like dagster-aws' S3 and Secrets Manager resources.

    Region, endpoint, profile, retries and TLS are fields that the Dagster UI shows; credentials come from the
    usual AWS chain.
    """

    region_name: str | None = Field(default=None, description="AWS region of the queues.")
    endpoint_url: str | None = Field(default=None, description="Where SQS is, if not at AWS.")
    profile_name: str | None = Field(default=None, description="Profile of the AWS configuration files.")
    max_attempts: int = Field(default=5, description="How often a request is tried.")
    use_ssl: bool = Field(default=True, description="Whether to speak TLS.")
    verify: bool = Field(default=True, description="Whether to check certificates.")
    receivers: int = Field(default=8, description="Requests at a time, each with a connection.")

    def get_client(self) -> Any:
        """Make a boto3 SQS client with a connection for every receiver."""
        # dagster_aws imports all of its components, half a second: only a run that reads from queues pays for it
        import boto3
        from botocore.config import Config
        from dagster_aws.utils import construct_boto_client_retry_config

        retries = construct_boto_client_retry_config(self.max_attempts)  # type: ignore[no-untyped-call]
        return boto3.session.Session(profile_name=self.profile_name).client(
            "sqs",
            region_name=self.region_name,
            endpoint_url=self.endpoint_url,
            use_ssl=self.use_ssl,
            verify=self.verify,
            config=retries.merge(Config(max_pool_connections=self.receivers + 2)),
        )


class Streams(ConfigurableResource):  # type: ignore[type-arg]
    """Opens the stream of a pipeline."""

    sqs: SqsResource

    @contextmanager
    def open(self, pipeline: Pipeline) -> Iterator[Stream]:
        """Open a stream, which is closed at the end, whatever happens."""
        stream = Stream(pipeline, settings(), sqs=self.sqs.get_client())
        try:
            yield stream
        finally:
            stream.close()

    @contextmanager
    def look(self, pipeline: Pipeline) -> Iterator[Stream]:
        """Open a stream for a sensor: the same one at every tick, since connecting costs more than looking.

        Sensors share a process and may tick at the same time, so each stream has a lock. After an error the next tick
        connects anew.
        """
        with _guard:
            lock = _locks.setdefault(pipeline.name, Lock())
        with lock:
            stream = _kept.get(pipeline.name)
            if stream is None:
                stream = Stream(pipeline, settings(), sqs=self.sqs.get_client(), retry=False)
                _kept[pipeline.name] = stream
            try:
                yield stream
            except BaseException:
                _kept.pop(pipeline.name, None)
                stream.close()
                raise


def streams_resource(config: Settings) -> Streams:
    """Make the resource from the settings."""
    sqs = SqsResource(
        region_name=config.sqs_region, endpoint_url=config.sqs_endpoint_url, receivers=config.sqs_receivers
    )
    return Streams(sqs=sqs)
