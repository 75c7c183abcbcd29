"""Security options reach Apache Kafka, by source and producer; what it refuses is one line that shows no secret."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from builders import event
from headrace.clients import kafka as kafka_access
from headrace.clients.kafka import SETTING, connect
from headrace.config.settings import Settings, load_settings
from headrace.contracts import EVENTS
from headrace.core.batch import Position
from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.local.processes import LOOPBACK
from headrace.local.supervisor import Supervisor
from headrace.pipelines import Kafka, Pipeline
from headrace.streams.adapters import producer
from headrace.streams.stream import Stream

from . import servers

servers.asked_for(servers.KAFKA)

USER, PASSWORD, WRONG = "headrace", "correct-horse-battery", "wrong-staple-battery"
PAYLOADS: list[bytes | None] = [event(event_id=str(n)) for n in range(50)]
JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Secured:
    """A broker with one listener, and what a client that it accepts says."""

    servers: str
    security: dict[str, Any]

    def but(self, **other: Any) -> Secured:
        """The same broker, and something else said."""
        return Secured(self.servers, {**self.security, **other})


@pytest.fixture(scope="module")
def sasl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """SASL_PLAINTEXT; it takes PLAIN and SCRAM-SHA-256."""
    plain = f'{JAAS}.plain.PlainLoginModule required username="{USER}" password="{PASSWORD}"'
    service, address = servers.kafka_service(
        servers.fetched(servers.KAFKA),
        tmp_path_factory.mktemp("sasl"),
        protocol="SASL_PLAINTEXT",
        options={
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{plain} user_{USER}="{PASSWORD}";',
            "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": (
                f"{JAAS}.scram.ScramLoginModule required;"
            ),
        },
        scram=f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]",
    )
    security = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": USER,
        "sasl_plain_password": PASSWORD,
    }
    with Supervisor([service]):
        yield Secured(address, security)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """SSL, with a certificate that an authority of this test has signed."""
    home = tmp_path_factory.mktemp("tls")
    authority, signed = _certificates(home)
    service, address = servers.kafka_service(
        servers.fetched(servers.KAFKA),
        home,
        protocol="SSL",
        options={
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(signed),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority),
        },
    )
    with Supervisor([service]):
        yield Secured(address, {"security_protocol": "SSL", "ssl_cafile": str(authority)})


def _certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and key and certificate of a server on loopback that it signed."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not on the PATH")

    def make(name: str, *more: str) -> Path:
        key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-keyout", str(key), "-out", str(certificate), *more],
            check=True, capture_output=True,
        )  # fmt: skip
        return certificate

    authority = make("authority")
    by = ("-CA", str(authority), "-CAkey", str(folder / "authority.key"))
    server = make("server", *by, "-addext", f"subjectAltName=IP:{LOOPBACK}")
    both = folder / "keystore.pem"
    both.write_text((folder / "server.key").read_text() + server.read_text())
    return authority, both


@pytest.fixture(params=["PLAIN", "SCRAM-SHA-256", "SSL"])
def secured(request: pytest.FixtureRequest) -> Secured:
    """Each way in."""
    if request.param == "SSL":
        return request.getfixturevalue("tls")  # type: ignore[no-any-return]
    found: Secured = request.getfixturevalue("sasl")
    return found.but(sasl_mechanism=request.param)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Secured], Settings]:
    """``configured(broker)``: settings as an operator gives them, by environment."""

    def read(broker: Secured) -> Settings:
        monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
        monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP_SERVERS", broker.servers)
        monkeypatch.setenv(SETTING, json.dumps(broker.security))
        return load_settings()

    return read


Configured = Callable[[Secured], Settings]


def stream_of(settings: Settings, topic: str = "any") -> Stream:
    return Stream(Pipeline(EVENTS, (Kafka(topic),), "team:test", "secured"), settings)


def refused(settings: Settings) -> list[BaseException]:
    """What source and producer raise."""
    spec, stream, raised = Kafka("any"), stream_of(settings), []
    for attempt in (stream.guarded(spec.name).cursors, lambda: producer(settings, spec)):
        with pytest.raises(HeadraceError) as caught:
            attempt()
        raised.append(caught.value)
    with suppress(HeadraceError):
        stream.close()
    return raised


def is_fatal_and_names(settings: Settings, servers: str, *words: str) -> bool:
    """Whether both are fatal, in one line that names the broker, the setting and the words, and shows no secret."""
    raised = refused(settings)
    lines = [str(error) for error in raised]
    traces = "".join("".join(traceback.format_exception(error)) for error in raised)
    assert all(isinstance(error, Fatal) for error in raised), lines
    assert not any("\n" in line for line in lines), lines
    assert WRONG not in traces and PASSWORD not in traces
    return all(word in line for line in lines for word in (servers, SETTING, *words))


def test_messages_go_in_and_come_out(
    secured: Secured, configured: Configured, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings, topic = configured(secured), f"t-{uuid.uuid4().hex}"
    admin = connect(KafkaAdminClient, secured.servers, settings.kafka_security)
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    sending = producer(settings, Kafka(topic))
    sending.send(PAYLOADS)
    sending.flush()
    sending.close()
    stream = stream_of(settings, topic)
    source = stream.guarded(f"kafka/{topic}")
    found, position = [], Position()
    while len(found) < len(PAYLOADS):
        batch = source.read(position, 100, 1.0)
        found += batch.records["payload"].to_list()
        position = batch.after
    stream.close()
    assert sorted(found) == sorted(p for p in PAYLOADS if p is not None)
    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_one_line(
    sasl: Secured, configured: Configured, caplog: pytest.LogCaptureFixture, mechanism: str
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = configured(sasl.but(sasl_mechanism=mechanism, sasl_plain_password=WRONG))
    assert is_fatal_and_names(settings, sasl.servers, "refuses the credentials", "sasl_plain_password")
    assert WRONG not in caplog.text


def test_a_mechanism_that_the_broker_does_not_offer_is_one_line(
    sasl: Secured, configured: Configured
) -> None:
    settings = configured(sasl.but(sasl_mechanism="SCRAM-SHA-512"))
    assert is_fatal_and_names(settings, sasl.servers, "does not offer", "check sasl_mechanism")


def test_a_certificate_of_an_unknown_authority_is_one_line(tls: Secured, configured: Configured) -> None:
    settings = configured(Secured(tls.servers, {"security_protocol": "SSL"}))
    assert is_fatal_and_names(settings, tls.servers, "not trusted", "ssl_cafile")


@pytest.mark.parametrize("spoken", ["PLAINTEXT", "SASL_SSL"])
def test_another_protocol_than_the_brokers_says_which_was_spoken(
    sasl: Secured, configured: Configured, monkeypatch: pytest.MonkeyPatch, spoken: str
) -> None:
    """A broker that hangs up says no more than one that is not there."""
    monkeypatch.setenv("HEADRACE_RETRY_ATTEMPTS", "1")
    monkeypatch.setattr(kafka_access, "_CONNECT_MS", 1_000)
    security = sasl.but(security_protocol=spoken).security if spoken != "PLAINTEXT" else {}
    for error in refused(configured(Secured(sasl.servers, security))):
        assert isinstance(error, Retriable)
        assert f"{sasl.servers} ({spoken})" in str(error)
