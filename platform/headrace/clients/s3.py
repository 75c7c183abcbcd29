"""A bucket on S3, asked for before it is used."""

from __future__ import annotations

from headrace.core.errors import Fatal


def require_bucket(bucket: str, setting: str) -> None:
    """Ask S3 whether it has the bucket and lets us in.

    Args:
        bucket: Its name.
        setting: The variable that names it, for the error.

    Raises:
        Fatal: It has not or does not; says what to do.
    """
    import boto3  # slow to import
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    short = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 1})
    try:
        boto3.Session().client("s3", config=short).head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404:
            raise Fatal(f"{setting}: there is no bucket {bucket!r}; create it or correct the name") from None
        raise Fatal(
            f"{setting}: bucket {bucket!r} refuses these AWS credentials (HTTP {status}); grant them "
            "s3:ListBucket, s3:GetObject and s3:PutObject"
        ) from None
    except BotoCoreError as error:
        raise Fatal(
            f"{setting}: bucket {bucket!r} cannot be asked for: {' '.join(str(error).split())}"
        ) from None
