"""Define the one error hierarchy.

Adapters translate their driver's exceptions into these errors; nothing above an adapter names a driver's
exception. Any other exception is a defect and is never retried.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of every error that Headrace raises on purpose.

    The message names the thing, the value and the next step; commands print it as their one line.
    """


class Retriable(HeadraceError):
    """The same call may succeed later: a service is away or slow, or another writer came first."""


class Conflict(Retriable):
    """Another writer committed to the same cursors first; start over from the table."""


class Busy(Retriable):
    """Another process holds the lock or the lease and did not release it in time."""


class Inconclusive(Retriable):
    """A check got no consistent look at what it judges; nothing is known to be wrong."""


class Fatal(HeadraceError):
    """The same call will fail again: a wrong setting, a missing topic, a full disk."""


class NotSet(Fatal):
    """No setting says where a service is."""


class MissingExtra(Fatal):
    """A command or setting needs packages of an extra that is not installed."""


class HistoryGone(Fatal):
    """An old version of a lake table can no longer be read: its log or its files were removed."""


class BadData(HeadraceError):
    """The input cannot be read at all (a broken file, an unknown format).

    A single bad record is never an exception: it is a row of the rejected table.
    """
