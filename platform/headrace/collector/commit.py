"""Commit parcels for good: look their events up, append them to the log with one sync, and add them to the index."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headrace.collector.base import Index, Log, Refused
from headrace.collector.limits import Drain, Rated
from headrace.collector.log import ID_BYTES, Entry, LogFull
from headrace.collector.meters import Meters
from headrace.collector.parcels import CONFLICT, REPEATED, TAKEN, UNTAKEN, Committed, Parcel, Wait, joined
from headrace.core.errors import HeadraceError

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 5
#: About the bytes of an entry in the log beside payload and ids.
_FRAME = 40
_Flags = npt.NDArray[np.bool_]


class Committer:
    """Commits parcels; the only one who appends to the log. For one thread.

    Attributes:
        broken: Why nothing can be committed; empty if it can.

    Args:
        log: The log.
        index: The index of what was accepted.
        meters: Counts events.
        rated: Judges the parcels' bills.
    """

    def __init__(self, log: Log, index: Index, meters: Meters, rated: Rated | None = None) -> None:
        self._log, self._index, self._meters, self._rated = log, index, meters, rated or Rated()
        self._unindexed: list[tuple[int, bytes]] = []
        self._drain = Drain()
        self._appended = log.bytes
        self.broken = ""

    def commit(self, parcels: Sequence[Parcel]) -> list[Committed]:
        """Commit parcels as one group, and return what became of each of them.

        Raises:
            HeadraceError: Nothing was taken; see ``refusal``.
        """
        if self._unindexed:  # what is durable must be found before anything else is looked up
            self._index.add(self._unindexed)
            self._unindexed = []
        waits = [self._too_fast(parcel) for parcel in parcels]
        slow = any(waits)
        digests = [
            _without(*both) if both[1] else both[0].digests for both in zip(parcels, waits, strict=True)
        ]
        looked = self._index.look(digests[0] if len(digests) == 1 else b"".join(digests))
        if looked.all_new and not slow:
            return self._all(parcels)
        fresh = looked.new
        if slow:
            fresh = fresh & ~np.concatenate([_of(p, some) for p, some in zip(parcels, waits, strict=True)])
        entries: list[Entry] = []
        place = np.full(len(fresh), -1, np.int64)
        begin = 0
        for parcel in parcels:
            end = begin + parcel.number
            some, place[begin:end] = _left(parcel, fresh[begin:end], len(entries))
            entries += some
            begin = end
        first = self._append(entries)
        numbers = np.where(place >= 0, place + first, looked.number)
        numbers = np.where((numbers < 0) & (looked.within >= 0), numbers[looked.within], numbers)
        fates = np.where(fresh, TAKEN, np.where(looked.other_body, CONFLICT, REPEATED)).astype(np.uint8)
        if slow:
            fates[looked.new & ~fresh] = UNTAKEN
        self._count(parcels, fresh, fates)
        found, begin = [], 0
        for parcel, some_waits in zip(parcels, waits, strict=True):
            end = begin + parcel.number
            found.append(
                Committed(first, numbers[begin:end].tobytes(), fates[begin:end].tobytes(), some_waits)
            )
            begin = end
        return found

    def _all(self, parcels: Sequence[Parcel]) -> list[Committed]:
        """Commit parcels of which every event is new."""
        first = self._append([entry for parcel in parcels for entry in _whole(parcel)])
        events = sum([parcel.number for parcel in parcels])
        rejected = sum([_rejected(parcel, None) for parcel in parcels])
        self._meters.events({"accepted": events - rejected, "rejected": rejected})
        found = []
        for parcel in parcels:
            found.append(Committed(first))
            first += len(parcel.entries)
        return found

    def _append(self, entries: list[Entry]) -> int:
        """Append entries and return the number of the first."""
        numbers = self._log.append(entries)
        self.broken = ""
        if not entries:
            return numbers.start
        self._appended += sum([len(entry.payload) + len(entry.ids) + _FRAME for entry in entries])
        indexed = [(number, entry.ids) for number, entry in zip(numbers, entries, strict=True)]
        try:
            self._index.add(indexed)
        except HeadraceError as error:  # they are durable, so they are accepted
            log.error("%s", error)
            self._unindexed = indexed
        if self._drain.due:
            self._drain.note(self._appended - self._log.bytes)
        return numbers.start

    def _too_fast(self, parcel: Parcel) -> list[Wait]:
        found: list[Wait] = []
        for place, bill in enumerate(parcel.bills):
            for at, claim in enumerate(bill.claims):
                if seconds := self._rated.wait([claim], bill.events):
                    found.append(Wait(place, at, seconds))
                    break
        return found

    def _count(self, parcels: Sequence[Parcel], fresh: _Flags, fates: npt.NDArray[np.uint8]) -> None:
        """Count events by what became of them."""
        rejected, begin = 0, 0
        for parcel in parcels:
            end = begin + parcel.number
            rejected += _rejected(parcel, fresh[begin:end])
            begin = end
        self._meters.events(
            {
                "accepted": int(fresh.sum()) - rejected,
                "rejected": rejected,
                "repeated": int((fates == REPEATED).sum()),
                "conflict": int((fates == CONFLICT).sum()),
            }
        )

    def refusal(self, error: Exception, size: int) -> Refused:
        """Return the refusal of requests after an error, and note what it means for those to come.

        Args:
            error: What ``commit`` raised, or a defect.
            size: Bytes of what was to be committed.
        """
        known = isinstance(error, HeadraceError)
        said = str(error) if known else "the collector has a defect, which its log names; nothing was taken"
        if isinstance(error, LogFull):
            return Refused(503, said, self._drain.seconds_until(size))
        self.broken = said
        return Refused(503, said, _AGAIN_SECONDS)


def _rejected(parcel: Parcel, fresh: _Flags | None) -> int:
    """Count the events that the contract rejects, among the new ones or, without ``fresh``, among all."""
    if not any(entry.rejected for entry in parcel.entries):
        return 0
    refused = np.array([entry.rejected for entry in parcel.entries])[parcel.entry_of()]
    return int((refused if fresh is None else refused & fresh).sum())


def _of(parcel: Parcel, waits: Sequence[Wait]) -> _Flags:
    """Tell which events are of requests that came too fast."""
    found = np.zeros(parcel.number, np.bool_)
    for wait in waits:
        bill = parcel.bills[wait.bill]
        found[bill.first : bill.first + bill.events] = True
    return found


def _without(parcel: Parcel, waits: Sequence[Wait]) -> bytes:
    """Return the digests of a parcel; who came too fast is like nobody, so that nothing is a repeat of it."""
    digests = bytearray(parcel.digests)
    for wait in waits:
        bill = parcel.bills[wait.bill]
        digests[bill.first * ID_BYTES : (bill.first + bill.events) * ID_BYTES] = os.urandom(
            bill.events * ID_BYTES
        )
    return bytes(digests)


def _whole(parcel: Parcel) -> list[Entry]:
    """Return all entries of a parcel."""
    if len(parcel.entries) == 1:
        only = parcel.entries[0]
        return [Entry(only.stream, only.payload, parcel.digests)]
    rows = _rows(parcel)
    return [
        Entry(one.stream, one.payload, rows[at].tobytes())
        for one, at in zip(parcel.entries, _by_entry(parcel), strict=True)
    ]


def _left(parcel: Parcel, fresh: _Flags, before: int) -> tuple[list[Entry], npt.NDArray[np.int64]]:
    """Return the entries of the events that are new, and the place of each event's entry; -1 for none.

    Args:
        parcel: The parcel.
        fresh: Which of its events are new.
        before: Entries before these.
    """
    rows, lengths = _rows(parcel), np.frombuffer(parcel.lengths, np.uint32)
    made: list[Entry] = []
    place = np.full(len(fresh), -1, np.int64)
    for one, at in zip(parcel.entries, _by_entry(parcel), strict=True):
        wanted = at[fresh[at]]
        if not len(wanted):
            continue
        payload = one.payload
        if len(wanted) < len(at):
            ends = np.cumsum(lengths[at] + np.uint32(1))  # a bracket or comma before each
            payload = joined(
                [
                    payload[end - size : end]
                    for end, size in zip(ends[fresh[at]], lengths[wanted], strict=True)
                ]
            )
        place[wanted] = before + len(made)
        made.append(Entry(one.stream, payload, rows[wanted].tobytes()))
    return made, place


def _rows(parcel: Parcel) -> npt.NDArray[np.uint8]:
    return np.frombuffer(parcel.digests, np.uint8).reshape(-1, ID_BYTES)


def _by_entry(parcel: Parcel) -> list[npt.NDArray[np.int64]]:
    """Return the places of the events of each entry."""
    if len(parcel.entries) == 1:
        return [np.arange(parcel.number)]
    entry_of = parcel.entry_of()
    order = np.argsort(entry_of, kind="stable")
    return np.split(order, np.searchsorted(entry_of[order], np.arange(1, len(parcel.entries))))
