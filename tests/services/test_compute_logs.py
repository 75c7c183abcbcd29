"""What runs write, on S3 as dagster-aws puts it there."""

# no `from __future__ import annotations`: Dagster reads the annotations of assets as objects

import shutil
from pathlib import Path

import boto3
import pytest
from dagster import DagsterInstance, asset, materialize
from dagster._core.storage.compute_log_manager import ComputeIOType

from headrace.clients.s3 import require_bucket
from headrace.config.settings import settings
from headrace.config.shipped import DAGSTER, shipped
from headrace.core.errors import Fatal

from .servers import REGION, S3, Bucket, asked_for

asked_for(S3)


@pytest.fixture
def home(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home whose logs go to the bucket, found by the usual variables alone."""
    shutil.copy(shipped(DAGSTER), tmp_path)
    for name, value in {
        "DAGSTER_HOME": str(tmp_path),
        "HEADRACE_HOME": str(tmp_path / "headrace"),
        "HEADRACE_COMPUTE_LOGS": f"{bucket.uri}/logs/of-runs",
        "AWS_ENDPOINT_URL_S3": bucket.storage_options["aws_endpoint"],
        "AWS_ACCESS_KEY_ID": "headrace",
        "AWS_SECRET_ACCESS_KEY": "headrace",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    return tmp_path


def test_what_a_run_writes_is_in_the_bucket_and_readable_from_elsewhere(home: Path, bucket: Bucket) -> None:
    @asset
    def talks() -> None:
        print("said on standard output")

    with DagsterInstance.get() as instance:
        assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
        run = materialize([talks], instance=instance).run_id
        [key] = instance.compute_log_manager.get_log_keys_for_log_key_prefix(
            [run, "compute_logs"], ComputeIOType.STDOUT
        )
    shutil.rmtree(home / "storage")
    with DagsterInstance.get() as instance:  # of another machine, as it were
        assert "said on standard output" in str(instance.compute_log_manager.get_log_data(key).stdout)
    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket="lake", Prefix="logs/of-runs/storage/")["Contents"]
    assert {one["Key"].rpartition(".")[2] for one in found} == {"out", "err"}
    assert all(run in one["Key"] for one in found)
    require_bucket("lake", "HEADRACE_COMPUTE_LOGS")


@pytest.mark.usefixtures("home")
def test_a_bucket_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(Fatal, match="there is no bucket 'laek'"):
        require_bucket("laek", "HEADRACE_COMPUTE_LOGS")
