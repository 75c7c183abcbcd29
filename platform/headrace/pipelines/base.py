"""Define what a pipeline file declares."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath
from typing import ClassVar, Literal, get_args

from headrace.contracts import Contract
from headrace.contracts.faults import near
from headrace.core.batch import Table
from headrace.formats import FORMATS, Format

#: Topic names that Kafka accepts (org.apache.kafka.common.internals.Topic); "." and ".." are folders to it.
_TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
#: Queue names that SQS accepts: 80 characters, with the ending of a FIFO queue.
_QUEUE = re.compile(r"(?=.{1,80}$)[A-Za-z0-9_-]+(\.fifo)?")
#: Tags that dbt can select by: no character that separates selectors.
_TAG = re.compile(r"[^\s,+@*:]+")
#: Tags of assets that Dagster accepts: a key may have a namespace.
_TAG_KEY, _TAG_VALUE = (
    re.compile(r"([\w.-]{1,63}/)?[\w.-]{1,63}", re.ASCII),
    re.compile(r"[\w.-]{0,63}", re.ASCII),
)
#: The health checks of every stream.
CHECKS = (
    "every_message_once",
    "offsets_reconcile",
    "contract_holds",
    "unknown_fields",
    "reject_rate",
    "acknowledged_events_land",
    "lag",
    "freshness",
    "parity_with_lake",
)
#: Owners that Dagster accepts.
_OWNER = re.compile(r"team:[A-Za-z0-9_]+|[^@\s:]+@[^@\s]+\.[^@\s]+")


#: How the messages of a topic are written: as JSON, or in Confluent's wire format by a schema in a registry.
KafkaFormat = Literal["json", "confluent"]


@dataclass(frozen=True, slots=True)
class Kafka:
    """A topic to read.

    Attributes:
        topic: Name of the topic.
        runs: Number of ingest runs that share its partitions. Run n takes the partitions whose number is n
            modulo ``runs``.
        format: ``json``, or ``confluent`` for messages that begin with the id of a schema, Avro, Protobuf or JSON
            Schema, in the registry that the settings name.
    """

    kind: ClassVar[str] = "kafka"
    noun: ClassVar[str] = "topic"
    topic: str
    runs: int = 1
    format: KafkaFormat = "json"

    def __post_init__(self) -> None:
        if not (isinstance(self.topic, str) and _TOPIC.fullmatch(self.topic)):
            raise ValueError(
                f"topic {self.topic!r} is none that Kafka takes: 1 to 249 letters, digits and . _ -"
            )
        if type(self.runs) is not int or self.runs < 1:
            raise ValueError(f"runs {self.runs!r} of topic {self.topic!r} is no number of runs from 1 on")
        if self.format not in get_args(KafkaFormat):
            raise ValueError(
                f"format {self.format!r} of topic {self.topic!r} is unknown: {near(self.format, get_args(KafkaFormat))}"
            )

    @property
    def name(self) -> str:
        """Name of the source."""
        return f"kafka/{self.topic}"


@dataclass(frozen=True, slots=True)
class Sqs:
    """A queue to read. It is not divided: one run receives in parallel.

    Attributes:
        queue: Name of the queue.
    """

    kind: ClassVar[str] = "sqs"
    noun: ClassVar[str] = "queue"
    queue: str

    def __post_init__(self) -> None:
        if not (isinstance(self.queue, str) and _QUEUE.fullmatch(self.queue)):
            raise ValueError(
                f"queue {self.queue!r} is no name that SQS takes: 1 to 80 letters, digits and - _, or such a one that"
                " ends in .fifo; the name, not the URL"
            )

    @property
    def runs(self) -> int:
        """Always one."""
        return 1

    @property
    def name(self) -> str:
        """Name of the source."""
        return f"sqs/{self.queue}"


@dataclass(frozen=True, slots=True)
class Files:
    """A folder of the archive with its sub-folders. It is not divided: one run reads file after file.

    Attributes:
        folder: Path below ``HEADRACE_ARCHIVE``, with forward slashes; a folder that does not exist is empty.
        format: Format of all its files; None detects it by name and content.
    """

    kind: ClassVar[str] = "files"
    noun: ClassVar[str] = "folder"
    folder: str
    format: Format | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str):
            raise ValueError(f"folder {self.folder!r} is no text: write it like 'events/2024'")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(
                f"format {self.format!r} of folder {self.folder!r} is unknown: {near(self.format, FORMATS)}"
            )
        path = PurePosixPath(self.folder)
        if not path.parts or str(path) != self.folder or {"/", ".."} & {*path.parts}:
            raise ValueError(f"folder {self.folder!r} is not below the archive: write it like 'events/2024'")

    @property
    def runs(self) -> int:
        """Always one."""
        return 1

    @property
    def name(self) -> str:
        """Name of the source."""
        return f"files/{self.folder}"


Spec = Kafka | Sqs | Files


def _duration(name: str, value: object, *, positive: bool = False) -> None:
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise ValueError(f"{name} {value!r} is no timedelta: write timedelta(seconds=...)")
    if value < timedelta(0) or (positive and not value):
        raise ValueError(f"{name} {value} is no time span{' above zero' if positive else ''}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a stream is polled and its models are rebuilt; None takes the setting named beside it.

    Attributes:
        look: Time between two polls of the sources (``HEADRACE_SENSOR_SECONDS``).
        cooldown: Quiet time before the models of stale days are rebuilt
            (``HEADRACE_REFRESH_COOLDOWN_SECONDS``).
        at_most: Time after which they are rebuilt even if data never pauses
            (``HEADRACE_REFRESH_MAX_WAIT_SECONDS``).
    """

    look: timedelta | None = None
    cooldown: timedelta | None = None
    at_most: timedelta | None = None

    def __post_init__(self) -> None:
        _duration("cadence: look", self.look, positive=True)
        _duration("cadence: cooldown", self.cooldown)
        _duration("cadence: at_most", self.at_most)
        if self.cooldown is not None and self.at_most is not None and self.at_most < self.cooldown:
            raise ValueError(
                f"cadence: at_most {self.at_most} is less than cooldown {self.cooldown}, which could never pass"
            )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a stream's health checks turn red; None takes the setting named beside it.

    Attributes:
        reject_rate: Share of rejected rows that is a warning (``HEADRACE_MAX_REJECT_RATE``).
        lag: Messages that wait in one source (``HEADRACE_MAX_LAG_MESSAGES``).
        behind: Time that messages may wait, versions may stay unpublished, and models may be older than their
            rows (``HEADRACE_MAX_BEHIND_SECONDS``).
        silence: Time without a new row after which an alert is sent (``HEADRACE_SILENCE_SECONDS``); zero for
            never.
        warn_only: Names of checks that warn instead of failing. A failed blocking check stops everything
            downstream.
        error_reject_rate: Share of rejected rows that is an error (``HEADRACE_ERROR_REJECT_RATE``).
    """

    reject_rate: float | None = None
    lag: int | None = None
    behind: timedelta | None = None
    silence: timedelta | None = None
    warn_only: frozenset[str] = frozenset()
    error_reject_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("reject_rate", "error_reject_rate"):
            share = getattr(self, name)
            if share is not None and not (_is_number(share) and 0 <= share <= 1):
                raise ValueError(f"thresholds: {name} {share!r} is no share between 0 and 1")
        if self.lag is not None and (type(self.lag) is not int or self.lag < 0):
            raise ValueError(f"thresholds: lag {self.lag!r} is no number of messages")
        _duration("thresholds: behind", self.behind, positive=True)
        _duration("thresholds: silence", self.silence)
        if isinstance(self.warn_only, str) or not isinstance(self.warn_only, Collection):
            raise ValueError(f"thresholds: warn_only {self.warn_only!r} is no set of checks: write {{'lag'}}")
        for name in self.warn_only:
            if name not in CHECKS:
                raise ValueError(f"thresholds: warn_only names no check {name!r}: {near(name, CHECKS)}")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One stream, from its sources to its models.

    Attributes:
        contract: Contract of its records; names the stream, its lake tables and its warehouse tables.
        sources: Where its messages wait.
        owner: Whom alerts name: an e-mail address or ``team:<name>``.
        description: One line for the catalogue.
        models: Tag of the dbt models that are built from it; None for a stream without models.
        cadence: How often it is polled and rebuilt.
        thresholds: When its checks turn red.
        tags: Tags of all its assets in Dagster.
        start: First day (UTC); earlier events are rejected. None starts with the first day that has data.
    """

    contract: Contract
    sources: tuple[Spec, ...]
    owner: str
    description: str
    models: str | None = None
    cadence: Cadence = field(default_factory=Cadence)
    thresholds: Thresholds = field(default_factory=Thresholds)
    tags: Mapping[str, str] = field(default_factory=dict)
    start: date | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.contract, Contract):
            raise ValueError(f"contract {self.contract!r:.60} is no Contract of headrace.contracts")
        self._verify_sources()
        if not isinstance(self.owner, str) or not _OWNER.fullmatch(self.owner):
            raise ValueError(f"owner {self.owner!r} is neither an e-mail address nor team:<name>")
        if not isinstance(self.description, str):
            raise ValueError(f"description {self.description!r} is no text")
        if self.models is not None and not (isinstance(self.models, str) and _TAG.fullmatch(self.models)):
            raise ValueError(
                f"models {self.models!r} is no tag of dbt models: one word, or None for no models"
            )
        for name, value, kind in (
            ("cadence", self.cadence, Cadence),
            ("thresholds", self.thresholds, Thresholds),
        ):
            if not isinstance(value, kind):
                raise ValueError(f"{name} {value!r:.60} is no {kind.__name__}: write {kind.__name__}(...)")
        if self.start is not None and (not isinstance(self.start, date) or isinstance(self.start, datetime)):
            raise ValueError(f"start {self.start!r} is no day: write it like date(2024, 3, 1)")
        self._verify_tags()

    def _verify_tags(self) -> None:
        if not isinstance(self.tags, Mapping):
            raise ValueError(f"tags {self.tags!r} is no mapping of text to text")
        for key, value in self.tags.items():
            if not (isinstance(key, str) and _TAG_KEY.fullmatch(key)):
                raise ValueError(
                    f"tags: key {key!r} is none that Dagster takes: up to 63 letters, digits and _ - ."
                )
            if not (isinstance(value, str) and _TAG_VALUE.fullmatch(value)):
                raise ValueError(
                    f"tags: value {value!r} of {key!r} is none that Dagster takes: up to 63 letters, digits and _ - ."
                )

    def _verify_sources(self) -> None:
        if isinstance(self.sources, Spec):
            raise ValueError(f"sources is one source, not a tuple of them: write ({self.sources!r},)")
        if not isinstance(self.sources, tuple | list) or not self.sources:
            raise ValueError("a pipeline needs at least one source: Kafka, Sqs or Files")
        for spec in self.sources:
            if not isinstance(spec, Spec):
                raise ValueError(f"source {spec!r} is none: write Kafka(...), Sqs(...) or Files(...)")
        names = [spec.name for spec in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source {twice[0]!r} is declared twice")

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.contract.name

    @property
    def tables(self) -> tuple[Table, Table]:
        """Its good and its rejected table, the same in lake and warehouse."""
        return self.contract.table, self.contract.rejected_table
