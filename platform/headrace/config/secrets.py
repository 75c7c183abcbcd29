"""Look up secrets that the settings refer to: in a file, AWS Secrets Manager or Parameter Store.

Credentials, region and endpoint come from where every AWS tool takes them: the environment (``AWS_PROFILE``,
``AWS_ENDPOINT_URL_SSM`` and so on), ``~/.aws``, or the machine's role. Without such a reference, nothing of AWS is
imported or called.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from headrace.core.errors import Fatal

_REFERENCE = re.compile(r"(?P<store>file|secretsmanager|ssm):(?P<name>[^#\s]+)(?:#(?P<key>.+))?")
_SECONDS = {"connect_timeout": 5, "read_timeout": 10}
_STORES = {
    "secretsmanager": ("Secrets Manager", "secretsmanager:GetSecretValue"),
    "ssm": ("Parameter Store", "ssm:GetParameter"),
}


def is_reference(value: str) -> bool:
    """Tell if a value is a reference: ``file:/path``, ``secretsmanager:NAME``, ``ssm:/path``; ``#key`` may follow."""
    return _REFERENCE.fullmatch(value) is not None


@cache
def resolve(reference: str, region: str) -> str:
    """Return the secret that a reference names. A process asks once: a rotated secret needs a restart.

    Args:
        reference: A file is one that Docker and Kubernetes mount, such as ``file:/run/secrets/clickhouse``; a line
            break at its end is left away. ``NAME`` may be an ARN. ``#key`` selects one value of a secret that is a JSON
            object.
        region: AWS region, unless the ARN, the environment or the profile names one.

    Returns:
        The secret's text.

    Raises:
        Fatal: The secret does not exist or may not be read. The message names it and the next step, never a value.
    """
    found = _REFERENCE.fullmatch(reference)
    assert found is not None, "call is_reference first"
    store, name, key = found["store"], found["name"], found["key"]
    text = _read(name) if store == "file" else _fetched(store, name, region)
    return text if key is None else _value(text, name, key)


def _read(path: str) -> str:
    try:
        text = Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Fatal(f"the secret {path} cannot be read: {why}; mount it, or correct the path") from None
    if not text:
        raise Fatal(f"the secret {path} is empty: write it into the file")
    return text


def _fetched(store: str, name: str, region: str) -> str:
    import boto3  # takes 0.25 s, so only where a setting refers to a secret
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    place, permission = _STORES[store]
    session = boto3.Session()
    where = (
        name.split(":")[3]
        if name.startswith("arn:") and name.count(":") > 4
        else session.region_name or region
    )
    what = f"{place} in {where}"
    try:
        client = session.client(
            store, region_name=where, config=Config(retries={"max_attempts": 3}, **_SECONDS)
        )
        if store == "ssm":
            return str(client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])
        answer: dict[str, Any] = client.get_secret_value(SecretId=name)
    except NoCredentialsError:
        raise Fatal(
            f"{what} cannot be asked for {name!r}: there are no AWS credentials; set AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID, or give the machine a role"
        ) from None
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"):
            raise Fatal(f"{what} has no {name!r}: create it, or correct name or region") from None
        if "AccessDenied" in code:
            raise Fatal(
                f"{what} does not let these credentials read {name!r}: grant them {permission}"
            ) from None
        raise Fatal(
            f"{what} refuses {name!r}: {code or type(error).__name__}; check the AWS credentials"
        ) from None
    except BotoCoreError as error:
        raise Fatal(f"{what} cannot be asked for {name!r}: {' '.join(str(error).split())}") from None
    if "SecretString" not in answer:
        raise Fatal(f"{name!r} in {what} is binary: store it as text")
    return str(answer["SecretString"])


def _value(text: str, name: str, key: str) -> str:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Fatal(f"{name!r} is no JSON object, so it has no key {key!r}: leave '#{key}' away")
    if key not in values:
        raise Fatal(f"{name!r} has no key {key!r}: add it, or correct what follows '#'")
    return str(values[key])
