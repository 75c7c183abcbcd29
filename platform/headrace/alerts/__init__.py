"""Who is told that something is wrong, once, and that it is well again.

A ``Problem`` has a key, its cause. The ``Desk`` keeps an alert for each cause that is not over, with what every channel
has been told of it, in a file below ``HEADRACE_HOME`` that is written after each message. So an alert is sent once to
each channel, again after a while if nobody mended it, and its end once; a channel that is down gets its message when
it is back, and the others get nothing twice. A process that is killed between a message and its note repeats that one.
"""

from headrace.alerts.base import Channel, Notice, Problem, length
from headrace.alerts.channels import Address, Log, addresses, verify
from headrace.alerts.desk import Alert, Book, Desk, News, desk

__all__ = [
    "Address",
    "Alert",
    "Book",
    "Channel",
    "Desk",
    "Log",
    "News",
    "Notice",
    "Problem",
    "addresses",
    "desk",
    "length",
    "verify",
]
