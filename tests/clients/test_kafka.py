"""Security options are checked before anybody connects, and a client that could not be made leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka.net.manager import KafkaConnectionManager

from headrace.clients import kafka as kafka_access
from headrace.clients.kafka import client_options
from headrace.core.errors import Fatal, Retriable
from headrace.local import processes
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.source import KafkaSource

SECRET = "s3cret"
SASL = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "u",
    "sasl_plain_password": SECRET,
}


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"sasl_plain_pasword": SECRET}, "'sasl_plain_pasword'; did you mean sasl_plain_password?"),
        ({"bootstrap_servers": "elsewhere:9092"}, "unknown option 'bootstrap_servers'"),
        ({"security_protocol": "TLS"}, "security_protocol='TLS' is none of PLAINTEXT, SSL"),
        ({**SASL, "security_protocol": "SSL"}, "sasl_mechanism needs security_protocol SASL_SSL"),
        ({**SASL, "sasl_mechanism": "CRAM"}, "sasl_mechanism='CRAM' is none of"),
        ({**SASL, "sasl_plain_password": 5}, "PLAIN needs sasl_plain_password, a string"),
        ({**SASL, "ssl_cafile": "/no/such.pem"}, "ssl_cafile='/no/such.pem': [Errno 2] No such file"),
    ],
)
def test_a_wrong_option_is_one_line_without_secrets(security: dict[str, Any], said: str) -> None:
    raised = []
    with pytest.raises(Fatal) as source:
        KafkaSource("t", "127.0.0.1:1", group="g", security=security).cursors()
    with pytest.raises(Fatal) as producer:
        KafkaProducer("127.0.0.1:1", "t", security)
    raised += [str(source.value), str(producer.value)]
    assert all(line.startswith("HEADRACE_KAFKA_SECURITY") and said in line for line in raised)
    assert not any(SECRET in line or "\n" in line for line in raised)


def test_a_key_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "key.pem"
    broken.write_text("no key at all")
    with pytest.raises(Fatal, match="TLS cannot be set up with ssl_certfile="):
        client_options({"security_protocol": "SSL", "ssl_certfile": str(broken), "ssl_password": SECRET})


@pytest.fixture
def no_tls() -> Iterator[str]:
    """``host:port`` of a server that answers in plain text, whatever it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1024)
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_tls_that_the_other_side_does_not_speak_is_final(no_tls: str) -> None:
    with pytest.raises(Fatal, match=rf"Kafka on {no_tls}: TLS fails .* HEADRACE_KAFKA_SECURITY"):
        KafkaProducer(no_tls, "t", {"security_protocol": "SSL"})


def test_options_are_passed_on_untouched() -> None:
    given = client_options({**SASL, "security_protocol": "SASL_PLAINTEXT"})
    assert given == {**SASL, "security_protocol": "SASL_PLAINTEXT"}
    assert client_options({}) == {}
    assert client_options(SASL)[
        "ssl_context"
    ].check_hostname  # and kafka-python reads the certificates no more


def test_a_broker_that_is_away_costs_neither_thread_nor_socket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # records that are kept would keep sockets
    monkeypatch.setattr(kafka_access, "_CONNECT_MS", 200)
    servers = f"127.0.0.1:{processes.pick_port(0, avoid={0})}"

    def held() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), psutil.Process().num_fds()

    def attempt() -> None:
        source = KafkaSource("t", servers, group="g")
        with pytest.raises(Retriable, match=servers):
            source.cursors()
        source.close()
        with pytest.raises(Retriable, match=servers):
            KafkaProducer(servers, "t")

    attempt()
    threads, files = held()
    attempt()
    now = held()
    assert now[0] <= threads and now[1] <= files, "fewer is the collector, which is late with another test's"


def test_connections_of_our_own_are_tried_and_kafka_pythons_serve_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert kafka_access.own_connections(), "kafka-python is built otherwise than clients/kafka.py expects"
    kafka_access.own_connections.cache_clear()
    monkeypatch.delattr(KafkaConnectionManager, "_build_transport")
    try:
        for _ in range(2):
            assert not kafka_access.own_connections()
        [said] = [r.getMessage() for r in caplog.records if "built otherwise" in r.getMessage()]
        assert "a refused connection may say less" in said
    finally:
        monkeypatch.undo()
        kafka_access.own_connections.cache_clear()
