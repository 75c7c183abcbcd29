"""Where Dagster keeps what it knows. ``dagster.yaml`` names these classes; the settings choose what they stand for.

So one ``dagster.yaml`` serves a laptop and a deployment, and what differs is where all else that differs is: in the
settings. The classes themselves are never made: Dagster asks them for the storage, and gets one of its own kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from dagster import Field, StringSource
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from headrace.errors import Fatal
from headrace.settings import Settings, settings

#: Seconds after which what a running step has written can be read by others.
_UPLOAD_SECONDS = 30


class ComputeLogs(ComputeLogManager, ConfigurableClass):  # type: ignore[type-arg]
    """What runs write to standard output and error: below ``base_dir``, or in S3 by ``HEADRACE_COMPUTE_LOGS``."""

    @classmethod
    def config_type(cls) -> Any:
        """``base_dir``: ``DAGSTER_HOME``."""
        return {"base_dir": Field(StringSource)}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ComputeLogManager[Any]:
        """Called by Dagster with the configuration in ``dagster.yaml``."""
        folder = str(Path(config_value["base_dir"]) / "storage")
        return _on_s3(settings(), folder, inst_data) or LocalComputeLogManager(folder, inst_data=inst_data)


def _on_s3(
    config: Settings, folder: str, inst_data: ConfigurableClassData | None
) -> ComputeLogManager[Any] | None:
    if not config.compute_logs:
        return None
    from dagster_aws.s3 import S3ComputeLogManager

    place = urlsplit(config.compute_logs)
    made = S3ComputeLogManager(
        bucket=place.netloc,
        prefix=place.path.strip("/") or "dagster",
        local_dir=folder,
        upload_interval=_UPLOAD_SECONDS,
        inst_data=inst_data,
    )
    return cast("ComputeLogManager[Any]", made)


def verify_compute_logs(config: Settings) -> str:
    """Where they are; asks S3 whether it has the bucket and lets us in.

    Raises:
        Fatal: It has not or does not; says what to do.
    """
    bucket = urlsplit(config.compute_logs).netloc
    if not bucket:
        return "below DAGSTER_HOME"
    import boto3  # every process of Dagster imports this module
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    short = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 1})
    try:
        boto3.Session().client("s3", config=short).head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404:
            raise Fatal(
                f"HEADRACE_COMPUTE_LOGS: there is no bucket {bucket!r}; create it or correct the name"
            ) from None
        raise Fatal(
            f"HEADRACE_COMPUTE_LOGS: bucket {bucket!r} refuses these AWS credentials (HTTP {status}); grant them "
            "s3:ListBucket, s3:GetObject and s3:PutObject"
        ) from None
    except BotoCoreError as error:
        raise Fatal(
            f"HEADRACE_COMPUTE_LOGS: bucket {bucket!r} cannot be asked for: {' '.join(str(error).split())}"
        ) from None
    return f"on S3, in bucket {bucket!r}"
