"""What a pipeline file declares."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.contracts import Contract


@dataclass(frozen=True, slots=True)
class Kafka:
    """A topic to read.

    Attributes:
        topic: Its name.
        runs: Ingest runs that divide its partitions among them: run n takes those whose number is n modulo ``runs``.
    """

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
    sources: tuple[Kafka | Sqs, ...]
    models: str
    owner: str
    description: str

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.contract.name
