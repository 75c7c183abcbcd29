"""The short way to SQS answers as boto3 does, is taken, and leaves to boto3 what does not go well."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EndpointConnectionError

from conftest import Stack
from headrace.clients.sqs import sqs_client
from headrace.local import processes
from headrace.local.queue import create_queues
from headrace.local.queue import sqs_client as plain_client

KEYS: dict[str, Any] = {"region": "us-east-1", "access_key_id": "headrace", "secret_access_key": "s3cret"}
ATTRIBUTES = {
    "trace": {"DataType": "String", "StringValue": "é"},
    "raw": {"DataType": "Binary", "BinaryValue": b"\xff\x00"},
}


@pytest.fixture
def url(stack: Stack) -> str:
    assert stack.settings.sqs_endpoint_url
    return stack.settings.sqs_endpoint_url


def without_botocore(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("botocore sent a request")

    monkeypatch.setattr(client._endpoint, "make_request", refuse)


def exchange(client: Any, queue: str) -> list[dict[str, Any]]:
    """What the three calls answer, without what differs from call to call."""
    entries = [{"Id": str(n), "MessageBody": f"é {n}", "MessageAttributes": ATTRIBUTES} for n in range(3)]
    sent = client.send_message_batch(QueueUrl=queue, Entries=entries)
    got = client.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
    )
    receipts = [message.pop("ReceiptHandle") for message in got["Messages"]]
    entries = [{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate([*receipts, "unknown"])]
    deleted = client.delete_message_batch(QueueUrl=queue, Entries=entries)
    empty = client.receive_message(QueueUrl=queue)
    for answer in (*sent["Successful"], *got["Messages"]):
        del answer["MessageId"]
    for message in got["Messages"]:
        for moment in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
            assert message["Attributes"].pop(moment).isdigit()
    answers = [sent, got, deleted, empty]
    for answer in answers:
        assert answer.pop("ResponseMetadata")["HTTPStatusCode"] == 200
    return answers


def test_it_answers_as_boto3_does(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"t-{uuid.uuid4().hex}" for _ in range(2)]
    queues = create_queues(url, names)
    expected = exchange(plain_client(url), queues[names[0]])
    assert [len(answer) for answer in expected] == [2, 1, 2, 0]
    assert expected[1]["Messages"][0]["MessageAttributes"]["raw"]["BinaryValue"] == b"\xff\x00"
    client = sqs_client(endpoint_url=url, **KEYS)
    without_botocore(client, monkeypatch)
    assert exchange(client, queues[names[1]]) == expected


def test_behind_a_proxy_botocore_sends_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", "")
    client = sqs_client(endpoint_url=url, **KEYS)
    without_botocore(client, monkeypatch)
    with pytest.raises(AssertionError, match="botocore sent a request"):
        client.receive_message(QueueUrl=f"{url}/000000000000/q")


def test_an_error_is_boto3s_own(url: str) -> None:
    caught = []
    for client in (plain_client(url), sqs_client(endpoint_url=url, **KEYS)):
        with pytest.raises(ClientError) as error:
            client.receive_message(QueueUrl=f"{url}/000000000000/none")
        caught.append((type(error.value).__name__, error.value.response["Error"]))
    assert caught[0] == caught[1]
    assert caught[0][1]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_a_service_that_is_away_is_boto3s_own_error() -> None:
    client = sqs_client(endpoint_url=f"http://127.0.0.1:{processes.pick_port(0, avoid={0})}", **KEYS)
    with pytest.raises(EndpointConnectionError):
        client.receive_message(QueueUrl="http://127.0.0.1/000000000000/q")


class Scripted(ThreadingHTTPServer):
    """Answers each request with the next of ``script``, a status and a body; None breaks the connection off."""

    def __init__(self, script: list[tuple[int, bytes] | None]) -> None:
        self.script = script
        self.requests: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers.items()), body))
        answer = self.server.script.pop(0)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted([])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("first", [(500, b"{}"), (200, b"no JSON"), None])
def test_what_does_not_go_well_is_sent_again(scripted: Scripted, first: tuple[int, bytes] | None) -> None:
    address = f"http://127.0.0.1:{scripted.server_port}"
    scripted.script += [first, (200, json.dumps({"Messages": [{"Body": "b"}]}).encode())]
    client = sqs_client(endpoint_url=address, **KEYS)
    answer = client.receive_message(QueueUrl=f"{address}/000000000000/q", WaitTimeSeconds=7)
    assert [message["Body"] for message in answer["Messages"]] == ["b"]
    (_, sent), (_, again) = scripted.requests
    assert sent == again
    assert json.loads(sent)["WaitTimeSeconds"] == 7


def test_it_is_signed(scripted: Scripted) -> None:
    address = f"http://127.0.0.1:{scripted.server_port}"
    scripted.script.append((200, b"{}"))
    client = sqs_client(endpoint_url=address, **KEYS)
    client.receive_message(QueueUrl=f"{address}/000000000000/q")
    [(headers, body)] = scripted.requests
    terms = dict(part.split("=", 1) for part in headers["Authorization"].split(" ", 1)[1].split(", "))
    signer = SigV4Auth(Credentials("headrace", "s3cret"), "sqs", "us-east-1")
    signed = {
        name: value for name, value in headers.items() if name.lower() in terms["SignedHeaders"].split(";")
    }
    request = AWSRequest("POST", f"{address}/", headers=signed, data=body)
    request.context["timestamp"] = headers["X-Amz-Date"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert signer.signature(text, request) == terms["Signature"]
    assert terms["Credential"].startswith("headrace/")
    assert headers["X-Amz-Target"] == "AmazonSQS.ReceiveMessage"
