"""Send a file to a topic or queue, and report what was sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.contracts import Contract
from headrace.formats import Format, Malformed, read_file
from headrace.producers.base import Producer

#: Malformed lines that a report shows at most.
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class SendReport:
    """What was sent of a file.

    Attributes:
        read: Lines or rows that are not blank. At the end of the file, sent + malformed.
        sent: Messages that the broker acknowledged.
        malformed: Lines that are no record and were not sent.
        examples: The first ``EXAMPLES`` malformed lines.
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
    """Send every record of a file, one message per line or row.

    Guarantee: at least once. A file that is sent twice arrives twice; the events of an access log then have the
    same ids.

    Args:
        path: See ``formats.read_file``.
        contract: What the records should be.
        producer: Where to send them; it is flushed but not closed.
        format: Overrides the format that the file's name and content suggest.
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
