"""What a pipeline file declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath
from typing import ClassVar

from headrace.batch import Table
from headrace.contracts import Contract
from headrace.formats import Format

#: As Dagster takes owners.
_OWNER = re.compile(r"team:[A-Za-z0-9_]+|[^@\s:]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True, slots=True)
class Kafka:
    """A topic to read.

    Attributes:
        topic: Its name.
        runs: Ingest runs that divide its partitions among them: run n takes those whose number is n modulo ``runs``.
    """

    kind: ClassVar[str] = "kafka"
    noun: ClassVar[str] = "topic"
    topic: str
    runs: int = 1

    @property
    def name(self) -> str:
        """Name of the source."""
        return f"kafka/{self.topic}"


@dataclass(frozen=True, slots=True)
class Sqs:
    """A queue to read. Not divided: one run receives in parallel.

    Attributes:
        queue: Its name.
    """

    kind: ClassVar[str] = "sqs"
    noun: ClassVar[str] = "queue"
    queue: str

    @property
    def runs(self) -> int:
        """One."""
        return 1

    @property
    def name(self) -> str:
        """Name of the source."""
        return f"sqs/{self.queue}"


@dataclass(frozen=True, slots=True)
class Files:
    """A folder of the archive, with its sub-folders. Not divided: one run reads one file after the other.

    Attributes:
        folder: Below ``HEADRACE_ARCHIVE``, with forward slashes; one that does not exist is empty.
        format: Of all its files; None tells it by name and content.
    """

    kind: ClassVar[str] = "files"
    noun: ClassVar[str] = "folder"
    folder: str
    format: Format | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.folder)
        if not path.parts or str(path) != self.folder or {"/", ".."} & {*path.parts}:
            raise ValueError(f"folder {self.folder!r} is not below the archive: write it like 'events/2024'")

    @property
    def runs(self) -> int:
        """One."""
        return 1

    @property
    def name(self) -> str:
        """Name of the source."""
        return f"files/{self.folder}"


Spec = Kafka | Sqs | Files


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a stream is looked at and its models are rebuilt; None takes the setting named beside it.

    Attributes:
        look: Between two looks at the sources (``HEADRACE_SENSOR_SECONDS``).
        cooldown: Quiet time before the models of touched days are rebuilt (``HEADRACE_REFRESH_COOLDOWN_SECONDS``).
        at_most: They are rebuilt after this even if data never pauses (``HEADRACE_REFRESH_MAX_WAIT_SECONDS``).
    """

    look: timedelta | None = None
    cooldown: timedelta | None = None
    at_most: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a stream's health checks turn red; None takes the setting named beside it.

    Attributes:
        reject_rate: Share of rejected rows (``HEADRACE_MAX_REJECT_RATE``).
        lag: Messages that wait in one source (``HEADRACE_MAX_LAG_MESSAGES``).
        behind: Time for which messages may wait, versions be unpublished and models be older than their rows
            (``HEADRACE_MAX_BEHIND_SECONDS``).
        silence: Time without any new row, which an alert tells (``HEADRACE_SILENCE_SECONDS``); zero for any.
        warn_only: Checks of these names warn where they would fail; a failure of a blocking one stops what comes after.
    """

    reject_rate: float | None = None
    lag: int | None = None
    behind: timedelta | None = None
    silence: timedelta | None = None
    warn_only: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.reject_rate is not None and not 0 <= self.reject_rate <= 1:
            raise ValueError(f"reject_rate {self.reject_rate} is no share between 0 and 1")
        if self.lag is not None and self.lag < 0:
            raise ValueError(f"lag {self.lag} is no number of messages")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One stream, from its sources to the models over it.

    Attributes:
        contract: What its records are; names the stream, its lake tables and its warehouse tables.
        sources: Where its messages wait.
        owner: Whom alerts name; an e-mail address or ``team:<name>``.
        description: One line for the catalogue.
        models: Tag of the dbt models that are built from it; None for a stream without models.
        cadence: How often it is looked at and rebuilt.
        thresholds: When its checks turn red.
        tags: Of all its assets in Dagster.
    """

    contract: Contract
    sources: tuple[Spec, ...]
    owner: str
    description: str
    models: str | None = None
    cadence: Cadence = field(default_factory=Cadence)
    thresholds: Thresholds = field(default_factory=Thresholds)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("a pipeline needs at least one source: Kafka, Sqs or Files")
        names = [spec.name for spec in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source {twice[0]!r} is declared twice")
        if not _OWNER.fullmatch(self.owner):
            raise ValueError(f"owner {self.owner!r} is neither an e-mail address nor team:<name>")

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.contract.name

    @property
    def tables(self) -> tuple[Table, Table]:
        """Its good and its rejected table, in lake and warehouse alike."""
        return self.contract.table, self.contract.rejected_table
