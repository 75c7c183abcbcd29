"""A file here, a file of the archive or a topic: what a person names is found, and read without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from builders import NOW, event
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import Position
from headrace.core.errors import BadData, Fatal
from headrace.local.broker import create_topics
from headrace.pipelines import Kafka, Pipeline
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.source import KafkaSource
from headrace.streams import samples
from headrace.streams.samples import NamedFile, NamedTopic
from headrace.streams.trial import try_batches


def test_a_file_here_is_found_before_one_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive" / "clicks"
    archive.mkdir(parents=True)
    (archive / "a.ndjson").write_bytes(b'{"n": 1}\n')
    monkeypatch.chdir(tmp_path)
    settings = load_settings(home=tmp_path, archive=str(tmp_path / "archive"))
    for name in ("clicks/a.ndjson", "archive/clicks/a.ndjson", str(archive / "a.ndjson")):
        found = samples.find(name, settings)
        assert isinstance(found, NamedFile)
        assert (found.below, found.folder) == ("clicks/a.ndjson", "clicks")
        assert samples.sample(found, 10, settings).records == [{"n": 1}]
    (tmp_path / "b.ndjson").write_bytes(b"{}")
    found = samples.find("b.ndjson", settings)
    assert isinstance(found, NamedFile)
    assert (found.below, found.folder) == ("", "")


def test_what_is_not_there_is_said_with_where_it_was_looked_for(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    with pytest.raises(
        Fatal, match=r"there is no file clicks, neither here nor in the archive .*, and no broker"
    ):
        samples.find("clicks", settings)
    with pytest.raises(Fatal, match="is a folder; name one of its files"):
        samples.find(str(tmp_path), settings)
    assert samples.find("clicks", load_settings(home=tmp_path, kafka_bootstrap_servers="a:1")) == NamedTopic(
        "clicks"
    )
    with pytest.raises(Fatal, match="there is no file x/clicks"):
        samples.find("x/clicks", load_settings(home=tmp_path, kafka_bootstrap_servers="a:1"))


def groups(servers: str) -> set[str]:
    admin = KafkaAdminClient(bootstrap_servers=servers)
    try:
        return {str(group["group_id"]) for group in admin.list_groups()}
    finally:
        admin.close()


def test_of_a_topic_the_newest_messages_of_each_partition_are_read_and_nothing_is_committed(
    stack: Stack,
) -> None:
    servers = stack.settings.kafka_servers
    create_topics(servers, {"sampled": 3, "sampled_empty": 1})
    producer = KafkaProducer(servers, "sampled")
    sent = [event(event_id=f"e-{n}") for n in range(900)]
    producer.send(sent, [str(n % 50).encode() for n in range(900)])
    producer.send([b"not json"], [b"0"])
    producer.close()
    before = groups(servers)  # of other tests
    topic = samples.find("sampled", stack.settings)
    found = samples.sample(topic, 90, stack.settings)
    assert (found.name, found.unit, found.total, found.exact) == ("topic sampled", "messages", 901, True)
    assert len(found.records) == 89
    assert found.wrong["not JSON"].count == 1
    newest = {record["event_id"] for record in found.records}
    assert all(f"e-{n}" not in newest for n in range(700)), "the newest of each partition"
    pipeline = Pipeline(EVENTS, (Kafka("sampled"),), owner="team:a", description="")
    trial = try_batches(EVENTS, samples.batches(topic, pipeline, None, stack.settings), Limits(), NOW)
    assert (trial.records, trial.landed, trial.reasons[0].check) == (901, 900, "json")
    assert trial.reasons[0].examples[0].place.startswith("partition ")
    with pytest.raises(BadData, match="topic 'sampled_empty' is empty"):
        samples.sample(NamedTopic("sampled_empty"), 10, stack.settings)
    with pytest.raises(Fatal, match=r"topic 'sampledd' does not exist .*; did you mean 'sampled'\?"):
        samples.sample(NamedTopic("sampledd"), 10, stack.settings)
    assert groups(servers) <= before
    # the same look sees a group that commits
    source = KafkaSource("sampled", servers, group="a-group-that-commits")
    source.cursors()
    source.acknowledge(source.read(Position(), 10, 5))
    source.close()
    assert groups(servers) - before == {"a-group-that-commits"}
