"""What a pipeline file declares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from headrace.contracts import Contract
from headrace.formats import Format


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
class Pipeline:
    """One stream, from its sources to the models over it.

    Attributes:
        contract: What its records are; names the stream and its tables.
        sources: Where its messages wait.
        models: Tag of the dbt models that are built from it.
        owner: Whom alerts name; an e-mail address or ``team:<name>``.
        description: One line for the catalogue.
    """

    contract: Contract
    sources: tuple[Spec, ...]
    models: str
    owner: str
    description: str

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.contract.name
