"""Connect to SQS, for sources and producers alike: a boto3 client with a short path for calls with messages.

Around each call boto3 spends two to three times the cost of the call itself: on its events, on three copies of
the headers, and on parsing answers shape by shape. With ten messages per call, that is most of the cost of
reading a queue. So sending, receiving and deleting batches take another path, through botocore's
``before-call`` event. botocore signs the request, urllib3 sends it, and the answer is read as JSON. Any answer
but 200 is left to botocore, which sends the request again with its own retries and raises its own errors. For
callers the client is boto3's.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import boto3
import botocore.session
import urllib3
from botocore.awsrequest import AWSResponse, create_request_object
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

_WITH_MESSAGES = ("SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch")
#: A long poll takes 20 s at most.
_READ_SECONDS = 30
_CONNECT_SECONDS = 5


def sqs_client(
    *,
    region: str,
    endpoint_url: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    connections: int = 8,
) -> Any:
    """Make a boto3 SQS client that threads can share; this takes 0.2 s.

    Args:
        region: Region of the queues.
        endpoint_url: Only for services that imitate SQS.
        access_key_id: Without keys the usual AWS credential chain answers.
        secret_access_key: See ``access_key_id``.
        connections: Connections to keep open: as many calls can run at once without opening new ones.
    """
    core = botocore.session.get_session()
    client = boto3.Session(botocore_session=core).client(
        "sqs",
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(
            max_pool_connections=connections,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 4},
            parameter_validation=False,  # costs a tenth of the time, and the requests are built here
        ),
    )
    # botocore does all of it through a proxy, or in the old query protocol
    if client.meta.service_model.resolved_protocol == "json" and not get_environ_proxies(
        client.meta.endpoint_url
    ):
        short_way = _ShortWay(connections, core.get_config_variable("ca_bundle"))
        for operation in _WITH_MESSAGES:
            client.meta.events.register(f"before-call.sqs.{operation}", short_way)
    return client


class _ShortWay:
    """A handler of ``before-call``: its answer replaces botocore's own request; None leaves the call to botocore."""

    def __init__(self, connections: int, ca_bundle: str | None) -> None:
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            cert_reqs="CERT_REQUIRED",
            ca_certs=get_cert_path(ca_bundle or True),
        )

    def __call__(
        self, model: Any, params: Mapping[str, Any], request_signer: Any, **_: Any
    ) -> tuple[AWSResponse, dict[str, Any]] | None:
        request = create_request_object(params)
        request_signer.sign(model.name, request)
        try:
            answer = self._pool.urlopen(
                request.method,
                request.url,
                body=request.data,
                headers=dict(request.headers.items()),
                retries=False,
                redirect=False,
            )
            if answer.status != 200:
                return None
            parsed = json.loads(answer.data)
        except (urllib3.exceptions.HTTPError, ValueError):
            return None
        for message in parsed.get("Messages") or ():
            for attribute in message.get("MessageAttributes", {}).values():
                if "BinaryValue" in attribute:
                    attribute["BinaryValue"] = b64decode(attribute["BinaryValue"])
        parsed["ResponseMetadata"] = {"HTTPStatusCode": 200, "RetryAttempts": 0}
        return AWSResponse(request.url, 200, answer.headers, answer), parsed
