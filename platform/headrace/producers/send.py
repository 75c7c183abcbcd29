"""Send a file to a topic or queue and say what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.contracts import Contract
from headrace.formats import Format, Malformed, read_file
from headrace.producers.base import Producer

#: How many malformed lines a report shows.
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of a file.

    Attributes:
        read: Lines or rows with something in them: sent + malformed, once the file is through.
        sent: Messages that the broker acknowledged.
        malformed: Lines that are no record and were not sent.
        examples: The first ``EXAMPLES`` of them.
    """

    read: int = 0
    sent: int = 0
    malformed: int = 0
    examples: tuple[Malformed, ...] = ()


def send_file(
    path: Path,
    contract: Contract,
    producer: Producer,
    format: Format | None = None,
    on_progress: Callable[[SendReport], None] | None = None,
) -> SendReport:
    """Send every record of a file; one message per line or row.

    Guarantee: at least once. The same file sent twice is sent twice; its access log events have the same ids.

    Args:
        path: See ``formats.read_file``.
        contract: What the records should be.
        producer: Where they go; it is flushed but not closed.
        format: Overrides what the file's name and content say.
        on_progress: Called with the report so far after each chunk; ``sent`` may lag behind.

    Raises:
        BadData: The file cannot be read as its format.
        Retriable: The broker is away.
        Fatal: The broker refuses the messages.
    """
    before = producer.acknowledged
    report = SendReport()
    for chunk in read_file(path, contract, format):
        if chunk.payloads:
            producer.send(chunk.payloads, chunk.keys)
        report = SendReport(
            read=report.read + chunk.read,
            sent=producer.acknowledged - before,
            malformed=report.malformed + len(chunk.malformed),
            examples=(report.examples + tuple(chunk.malformed))[:EXAMPLES],
        )
        if on_progress:
            on_progress(report)
    producer.flush()
    return SendReport(report.read, producer.acknowledged - before, report.malformed, report.examples)
