"""A topic in Confluent's wire format, from the broker to the lake; its registry may be away, or lack a schema."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest

from builders import event
from conftest import Stack
from headrace.cli.data import _producer
from headrace.contracts import EVENTS
from headrace.core.errors import Fatal, MissingExtra, NotSet, Retriable
from headrace.flow.commit import Landed
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.local.broker import create_topics
from headrace.pipelines import Kafka, Pipeline, discover
from headrace.producers.kafka import KafkaProducer
from headrace.repair import rejects
from headrace.repair.edits import transformed
from headrace.repair.redrive import redrive
from headrace.streams import samples
from headrace.streams.inference import infer
from headrace.streams.stream import Stream
from headrace.streams.trial import try_batches
from registered import AT, by_confluent
from registry_double import RegistryDouble, framed, registry_double

TOPIC_OF = "kafka/{}".format


@pytest.fixture
def double() -> Iterator[RegistryDouble]:
    with registry_double() as one:
        yield one


@pytest.fixture
def topic(stack: Stack) -> str:
    name = f"registered-{uuid.uuid4().hex[:8]}"
    create_topics(stack.settings.kafka_bootstrap_servers, {name: 1})
    return name


@pytest.fixture
def stream(stack: Stack, topic: str, double: RegistryDouble, tmp_path: Path) -> Iterator[Stream]:
    config = stack.settings.model_copy(
        update={
            "home": tmp_path,
            "lake_uri": str(tmp_path / "a lake"),
            "schema_registry_url": double.url,
            "retry_attempts": 1,
        }
    )
    one = Stream(
        Pipeline(EVENTS, (Kafka(topic, format="confluent"),), owner="team:a", description=""), config
    )
    yield one
    one.close()


def send(stack: Stack, topic: str, payloads: list[bytes]) -> None:
    producer = KafkaProducer(stack.settings.kafka_bootstrap_servers, topic)
    producer.send(payloads)
    producer.flush()
    producer.close()


def land(stream: Stream, topic: str) -> Landed:
    source = stream.guarded(TOPIC_OF(topic))
    pace = Pace(batch_messages=100, idle_seconds=1.0)
    return sum(ingest(source, stream.contract, stream.lake, stream.limits, pace), Landed())


def rejected(stream: Stream) -> dict[bytes, tuple[str, str]]:
    rows = stream.lake.rejected.scan().collect()
    return {
        payload: (reasons[0]["check"], reasons[0]["column"])
        for payload, reasons in rows.select("payload", "reasons").iter_rows()
    }


def test_all_formats_land_side_by_side_and_the_rest_is_rejected_untouched(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str
) -> None:
    good = by_confluent(double.url, topic)
    no_event = double.add('{"type":"record","name":"N","fields":[{"name":"event_id","type":"long"}]}')
    no_schema = double.add('{"type":"recor"}')
    unknown = framed(9_999, b"x")
    bad = {
        unknown: ("registry_schema(9999)", ""),
        framed(no_schema, b"x"): (f"registry_schema({no_schema})", ""),
        good["avro"][:-1]: ("avro", ""),
        good["protobuf"][:-1]: ("protobuf", ""),
        b"\1" + good["avro"][1:]: ("registry_magic_byte", ""),
        event(): ("registry_magic_byte", ""),
        framed(no_event, b"\2"): ("type(string)", "event_id"),
    }
    send(stack, topic, [*good.values(), *bad])
    double.asked.clear()
    done = land(stream, topic)
    assert (done.messages, done.good, done.rejected) == (10, 3, 7)
    rows = stream.lake.good.scan().collect()
    assert sorted(rows["event_id"]) == sorted(good)
    assert rows["occurred_at"].unique().to_list() == [AT]
    assert rows["channel"].unique().to_list() == ["web"]
    assert rejected(stream) == bad
    assert len(double.asked) == len(set(double.asked)), "each schema is asked for once"


def test_a_registry_that_is_away_is_waited_for_and_nothing_is_lost(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str
) -> None:
    send(stack, topic, list(by_confluent(double.url, topic).values()))
    double.status = 500
    with pytest.raises(Retriable, match="answers 500"):
        land(stream, topic)
    assert stream.lake.good.open().version <= 0 or not stream.lake.good.scan().collect().height
    double.status = 200
    done = land(stream, topic)
    assert (done.messages, done.good, done.rejected) == (3, 3, 0)
    assert land(stream, topic) == Landed(), "nothing lands twice"


def test_a_topic_is_tried_by_its_schemas(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str
) -> None:
    good = by_confluent(double.url, topic)
    send(stack, topic, [*good.values(), event()])
    batches = samples.batches(samples.NamedTopic(topic), stream.pipeline, None, stream.settings)
    found = try_batches(EVENTS, batches, stream.limits, datetime.now(UTC))
    assert (found.landed, found.rejected) == (3, 1)
    assert [one.check for one in found.reasons] == ["registry_magic_byte"]


def test_a_topic_whose_format_the_stream_does_not_declare_is_said(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str
) -> None:
    send(stack, topic, [*by_confluent(double.url, topic).values()])
    plain = Pipeline(EVENTS, (Kafka(topic),), owner="team:a", description="")
    with pytest.raises(Fatal, match=rf"pipeline of 'events' as Kafka\('{topic}', format='confluent'\)"):
        list(samples.batches(samples.NamedTopic(topic), plain, None, stream.settings))


def test_a_contract_is_learnt_from_messages_of_every_format(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str, tmp_path: Path
) -> None:
    good = by_confluent(double.url, topic)
    send(stack, topic, [*good.values()] * 20 + [good["avro"][:-1]])
    learnt = infer(topic, stream.settings, name="visits", to=tmp_path / "new", rows=1_000, force=False)
    assert (learnt.trial.landed, learnt.trial.rejected) == (60, 1)
    assert [one.check for one in learnt.trial.reasons] == ["avro"]
    pipeline = discover(tmp_path / "new").pipelines["visits"]
    assert pipeline.sources == (Kafka(topic, format="confluent"),)
    assert {"event_id", "occurred_at", "channel"} <= set(pipeline.contract.table.schema)
    unset = stream.settings.model_copy(update={"schema_registry_url": ""})
    with pytest.raises(NotSet, match=r"are in Confluent's wire format.*: set HEADRACE_SCHEMA_REGISTRY_URL"):
        infer(topic, unset, name="others", to=tmp_path / "new", rows=1_000, force=False)


def test_rejected_messages_are_repaired_as_the_json_that_their_schemas_say(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str
) -> None:
    values = {k: v for k, v in json.loads(event(channel="pigeon")).items() if isinstance(v, str)}
    fields = [{"name": name, "type": "string"} for name in values]
    schema = {"type": "record", "name": "E", "fields": fields}
    id, parsed = double.add(json.dumps(schema)), fastavro.parse_schema(schema)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed, values)
    cut = framed(id, body.getvalue()[:-1])
    send(stack, topic, [framed(id, body.getvalue()), cut])
    assert land(stream, topic).rejected == 2
    assert stream.framing is not None
    repair = transformed(rejects.find(stream), '.channel = "web"', stream.framing.or_plain)
    assert [why.partition(":")[0] for _, why in repair.failed] == ["avro"]
    assert redrive(stream, [repair.rows]).landed == 1
    [row] = stream.lake.good.scan().collect().to_dicts()
    assert (row["channel"], row["event_id"]) == ("web", values["event_id"])
    plain = transformed(rejects.find(stream), '.channel = "web"')
    assert not plain.rows.height, "or the schemas were not needed"


def test_send_says_that_it_writes_no_such_messages(stream: Stream, topic: str) -> None:
    for name in (None, topic):
        with pytest.raises(Fatal, match=rf"topic '{topic}' takes messages in Confluent's wire format"):
            _producer(stream.pipeline, "kafka", name, stream.settings)


def test_what_no_schema_was_known_for_lands_by_redrive(
    stack: Stack, stream: Stream, double: RegistryDouble, topic: str
) -> None:
    good = by_confluent(double.url, topic)
    known, double.schemas = double.schemas, {}
    elements = framed(1, b"[" + event(event_id="one") + b"," + event(event_id="two", channel="pigeon") + b"]")
    double.schemas = {1: {"schema": "{}", "schemaType": "JSON"}}
    send(stack, topic, [good["avro"], elements, event(event_id="plain")])
    early = land(stream, topic)
    assert (early.good, early.rejected) == (1, 3)
    found = rejects.find(stream)
    assert redrive(stream, [found]).landed == 1, "what was sent without a schema lands if one asks for it"
    double.schemas = known
    again = redrive(stream, [rejects.find(stream)])
    assert (again.landed, again.refused_records) == (1, 1)
    [left] = rejects.find(stream)["payload"]
    assert left == event(event_id="two", channel="pigeon"), "a record of an array is JSON by itself"
    assert sorted(stream.lake.good.scan().collect()["event_id"]) == ["avro", "one", "plain"]
    assert redrive(stream, [found]).landed == 0


@pytest.mark.parametrize(
    ("update", "error", "said"),
    [
        ({"schema_registry_url": ""}, NotSet, "no HEADRACE_SCHEMA_REGISTRY_URL is set"),
        ({"schema_registry_url": "registry"}, Fatal, "is no URL"),
    ],
)
def test_a_registry_that_is_not_named_is_said_before_anything_is_read(
    stream: Stream, topic: str, update: dict[str, Any], error: type[Exception], said: str
) -> None:
    one = Stream(stream.pipeline, stream.settings.model_copy(update=update))
    with pytest.raises(error, match=said):
        one.source(TOPIC_OF(topic))


def test_a_missing_extra_is_named(stream: Stream, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.core.extras._installed", lambda module: module != "fastavro")
    with pytest.raises(
        MissingExtra, match=r"a topic of format 'confluent' needs headrace\[registry\].*fastavro"
    ):
        Stream(stream.pipeline, stream.settings).source(TOPIC_OF(topic))


def test_other_streams_need_no_registry(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format 'avro' of topic 't' is unknown"):
        Kafka("t", format="avro")  # type: ignore[arg-type]
    config = stack.settings.model_copy(update={"lake_uri": str(tmp_path)})
    plain = Stream(Pipeline(EVENTS, (Kafka("t"),), owner="team:a", description=""), config)
    assert plain.framing is None
