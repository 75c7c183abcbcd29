"""The collector's log: what it acknowledged is there after a crash, damage is named, and the rest goes on."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from headrace.collector.log import DurableLog, Entry, LogFull
from headrace.collector.log.frames import encoded
from headrace.collector.log.segments import SET_ASIDE, Disk
from headrace.core.errors import Busy, Fatal, Retriable

SMALL = 1 << 10  # bytes of a segment


def entries(first: int, count: int, size: int = 40) -> list[Entry]:
    return [
        Entry("events", b"%d;" % n + b"x" * size, bytes([n % 256]) * 24) for n in range(first, first + count)
    ]


def opened(folder: Path, disk: Disk | None = None, segment: int = SMALL, limit: int = 1 << 20) -> DurableLog:
    return DurableLog(folder, limit_bytes=limit, segment_bytes=segment, disk=disk)


def numbers(log: DurableLog, first: int = 0) -> list[int]:
    found = list(log.read(first))
    assert all(entry.payload.startswith(b"%d;" % number) for number, entry in found), (
        "a number is its entry's"
    )
    return [number for number, _ in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def filled(folder: Path, count: int, size: int = 40) -> None:
    log = opened(folder)
    for first in range(0, count, 7):
        log.append(entries(first, min(7, count - first), size))
    log.close()


def test_entries_come_back_as_they_were_from_any_number_on_and_after_a_restart(folder: Path) -> None:
    log = opened(folder)
    given = entries(0, 100)
    for first in range(0, 100, 10):
        assert log.append(given[first : first + 10]) == range(first, first + 10)
    assert log.append([]) == range(100, 100)
    for _ in range(2):
        for first in (0, 1, 59, 60, 99, 100, 500):
            assert list(log.read(first)) == list(enumerate(given))[first:]
        assert (log.oldest, log.next) == (0, 100)
        assert len(log.segments()) > 3, "the test wants several segments"
        identity = log.id, log.lanes
        log.close()
        log = opened(folder)
        assert (log.id, log.lanes) == identity
    log.close()


def test_one_process_has_a_log_and_is_named_to_others(folder: Path) -> None:
    log = opened(folder)
    with pytest.raises(Busy, match=r"pid.*another HEADRACE_COLLECTOR_LOG"):
        opened(folder)
    log.close()
    log.close()
    opened(folder).close()


def test_a_reader_follows_what_is_appended_and_what_is_removed(folder: Path) -> None:
    log = opened(folder)
    reader = log.reader(0)
    assert reader.take() == []
    log.append(entries(0, 30))
    assert [n for n, _ in reader.take(most_bytes=150)] == [0, 1]
    assert [n for n, _ in reader.take()] == list(range(2, 30))
    log.append(entries(30, 1))
    assert [n for n, _ in reader.take()] == [30]
    assert reader.take() == []
    for n in range(31, 91):
        log.append(entries(n, 1))
    log.remove(before=90)
    assert 31 < log.oldest <= 90
    after = [n for n, _ in reader.take()]  # the file that it had open, then what is there
    assert after == sorted(after)
    assert set(range(log.oldest, 91)) <= set(after)
    assert not log.damaged, "what was removed is not lost"
    assert numbers(log)[0] == log.oldest
    reader.close()
    log.close()


def test_removal_keeps_every_entry_from_the_given_number_on(folder: Path) -> None:
    filled(folder, 90)
    log = opened(folder)
    for before in range(0, 95, 5):
        log.remove(before)
        assert log.oldest <= before
        assert numbers(log, before) == list(range(before, 90))
    left = log.bytes
    assert left < 90 * 40
    assert log.next == 90
    log.close()
    assert numbers(opened(folder), 0)[-1] == 89


def test_a_log_that_is_full_takes_nothing_and_goes_on_once_there_is_room(folder: Path) -> None:
    log = opened(folder, limit=8 * SMALL)
    with pytest.raises(LogFull, match="8,192 bytes"):
        for n in range(1_000):
            log.append(entries(n, 1))
    end = log.next
    assert 50 < end < 1_000
    assert numbers(log) == list(range(end))
    log.remove(end)
    assert log.append(entries(end, 1)) == range(end, end + 1)
    log.close()


def test_who_waits_is_woken_by_an_entry(folder: Path) -> None:
    log = opened(folder)
    assert not log.wait(0, 0.01)
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(log.wait(0, 30)))
    waiting.start()
    log.append(entries(0, 1))
    waiting.join(30)
    assert found == [True]
    log.close()


# what a crash leaves


def test_a_tail_torn_at_any_byte_is_cut_off_and_said_and_the_rest_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    filled(folder, 3, size=8)
    file = next(iter(sorted(folder.glob("*.log"))))
    whole = file.read_bytes().rstrip(b"\0")
    ends = [len(encoded(0, entries(0, n, 8))) for n in range(4)]
    for cut in range(len(whole) + 1):
        for space in (b"", bytes(100)):  # the space behind was reserved, or is not there
            copy = tmp_path / f"{cut}-{len(space)}"
            shutil.copytree(folder, copy)
            (copy / file.name).write_bytes(whole[:cut] + space)
            log = opened(copy)
            left = sum(end <= cut for end in ends) - 1
            assert numbers(log) == list(range(left))
            torn = whole[ends[left] : cut].rstrip(b"\0")
            assert bool(log.damaged) == bool(torn)
            if torn:
                assert log.damaged[0].kept is not None
                assert log.damaged[0].kept.read_bytes() == torn
                assert log.next > left, "a number that may have been sent is not given again"
            first = log.next
            assert log.append(entries(first, 2)) == range(first, first + 2)
            log.close()
            log = opened(copy)
            assert numbers(log) == [*range(left), first, first + 1]
            assert not log.damaged, "it is said once"
            log.close()
            shutil.rmtree(copy)


def test_a_flipped_bit_anywhere_costs_the_entry_it_is_in_and_is_named(folder: Path, tmp_path: Path) -> None:
    filled(folder, 4, size=8)
    file = next(iter(sorted(folder.glob("*.log"))))
    whole = file.read_bytes().rstrip(b"\0")
    ends = [len(encoded(0, entries(0, n, 8))) for n in range(5)]
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        copy = tmp_path / str(place)
        shutil.copytree(folder, copy)
        (copy / file.name).write_bytes(broken)
        log = opened(copy)
        hit = sum(end <= place for end in ends) - 1
        assert numbers(log) == [n for n in range(4) if n != hit], place
        (damage,) = log.damaged
        assert damage.kept is not None
        assert damage.kept.parent.name == SET_ASIDE
        assert bytes(broken[ends[hit] : ends[hit + 1]]).rstrip(b"\0") == damage.kept.read_bytes()
        if hit < 3:  # in the middle: it is known which one it was
            assert (damage.first, damage.end) == (hit, hit + 1)
            assert f"entries {hit} to {hit}" in str(damage)
        first = log.next
        assert first >= 4, "the number of a damaged entry is not given again"
        log.append(entries(first, 1))
        assert numbers(log)[-1] == first
        log.close()
        shutil.rmtree(copy)


def test_entries_larger_than_what_is_read_at_a_time(folder: Path) -> None:
    log = opened(folder, segment=8 << 20, limit=1 << 30)
    sizes = [10, 3 << 20, 0, 1 << 20, 5 << 20, 20 << 20, 1]
    for n, size in enumerate(sizes):
        log.append(entries(n, 1, size))
    assert numbers(log) == list(range(len(sizes)))
    log.close()
    log = opened(folder, segment=8 << 20, limit=1 << 30)
    assert numbers(log, 2) == list(range(2, len(sizes)))
    log.close()


def test_a_segment_that_somebody_removed_is_named_and_the_rest_is_read(folder: Path) -> None:
    filled(folder, 60)
    log = opened(folder)
    gone, after = log.segments()[1:3]
    gone.path.unlink()
    assert numbers(log) == [n for n in range(60) if not gone.first <= n < after.first]
    assert [(d.first, d.end) for d in log.damaged] == [(gone.first, after.first)]
    log.close()


def test_a_log_whose_segments_are_gone_has_another_id(folder: Path) -> None:
    filled(folder, 10)
    log = opened(folder)
    before = log.id
    log.close()
    for file in folder.glob("*.log"):
        file.unlink()
    log = opened(folder)
    assert log.id != before, "its numbers begin again"
    assert log.next == 0
    log.close()


@pytest.mark.parametrize("lost", ["log.json", "log.copy.json"])
@pytest.mark.parametrize("how", ["gone", "torn", "flipped"])
def test_the_identity_survives_the_loss_of_one_of_its_files(folder: Path, lost: str, how: str) -> None:
    filled(folder, 3)
    log = opened(folder)
    before = log.id
    log.close()
    file = folder / lost
    if how == "gone":
        file.unlink()
    elif how == "torn":
        file.write_bytes(file.read_bytes()[:20])
    else:
        file.write_text(file.read_text().replace(before, "0123456789abcdef"))
    log = opened(folder)
    assert log.id == before
    log.close()


def test_a_log_without_identity_is_refused_and_left_as_it_is(folder: Path) -> None:
    filled(folder, 3)
    for name in ("log.json", "log.copy.json"):
        (folder / name).unlink()
    before = sorted(file.name for file in folder.iterdir())
    with pytest.raises(Fatal, match="move"):
        opened(folder)
    assert sorted(file.name for file in folder.iterdir()) == before


# a disk that fails


class FaultyDisk(Disk):
    """Fails the next calls of these kinds: each is a list of errors, None for a call that works."""

    def __init__(self) -> None:
        self.faults: dict[str, list[OSError | None]] = {}
        self.half = False

    def _fault(self, kind: str) -> None:
        if (waiting := self.faults.get(kind)) and (error := waiting.pop(0)) is not None:
            raise error

    def write(self, descriptor: int, data: bytes, at: int) -> None:
        try:
            self._fault("write")
        except OSError:
            super().write(descriptor, data[: len(data) * 2 // 3], at)
            raise
        super().write(descriptor, data, at)

    def sync(self, descriptor: int) -> None:
        self._fault("sync")
        super().sync(descriptor)

    def reserve(self, descriptor: int, size: int) -> None:
        self._fault("reserve")
        super().reserve(descriptor, size)

    def truncate(self, descriptor: int, size: int) -> None:
        self._fault("truncate")
        super().truncate(descriptor, size)


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_full_log_and_half_a_write_leaves_nothing(
    folder: Path, disk: FaultyDisk, number: int
) -> None:
    log = opened(folder, disk)
    log.append(entries(0, 3))
    disk.faults["write"] = [error(number)]
    with pytest.raises(LogFull, match="room"):
        log.append(entries(100, 9))
    log.close()
    log = opened(folder, disk)
    assert numbers(log) == [0, 1, 2]
    assert not log.damaged
    assert log.append(entries(3, 3)) == range(3, 6)
    disk.faults["reserve"] = [error(number)]
    with pytest.raises(LogFull):
        log.append(entries(100, 90))  # needs another segment
    assert log.append(entries(6, 90)) == range(6, 96)
    assert numbers(log) == list(range(96))
    log.close()


def test_a_write_that_cannot_be_taken_back_is_void(folder: Path, disk: FaultyDisk) -> None:
    log = opened(folder, disk)
    log.append(entries(0, 3))
    disk.faults = {"write": [error(errno.EIO)], "truncate": [error(errno.EIO)]}
    with pytest.raises(Retriable):
        log.append(entries(100, 5))
    assert log.append(entries(8, 1)) == range(8, 9)
    for _ in range(2):
        assert numbers(log) == [0, 1, 2, 8]
        assert not log.damaged
        log.close()
        log = opened(folder)
    log.close()


def test_after_a_failed_sync_nothing_of_it_is_ever_read_and_another_file_is_begun(
    folder: Path, disk: FaultyDisk
) -> None:
    log = opened(folder, disk)
    log.append(entries(0, 3))
    disk.faults["sync"] = [error(errno.EIO)]
    with pytest.raises(Retriable, match="synced"):
        log.append(entries(100, 4))
    assert log.next == 7, "their numbers are not given again"
    assert numbers(log) == [0, 1, 2]
    assert log.append(entries(7, 2)) == range(7, 9)
    for _ in range(2):
        assert numbers(log) == [0, 1, 2, 7, 8]
        assert not log.damaged
        log.close()
        log = opened(folder)
    log.close()


def test_a_disk_that_cannot_be_written_at_all_stops_the_log(folder: Path, disk: FaultyDisk) -> None:
    log = opened(folder, disk)
    log.append(entries(0, 3))
    disk.faults["sync"] = [error(errno.EIO), error(errno.EIO)]
    with pytest.raises(Fatal, match="nothing is accepted"):
        log.append(entries(3, 4))
    with pytest.raises(Fatal, match="nothing is accepted"):
        log.append(entries(3, 4))
    assert log.stopped
    assert numbers(log) == [0, 1, 2], "what is durable is still read"
    log.close()
    log = opened(folder)
    assert numbers(log) == [0, 1, 2]
    log.close()


class ForgetfulDisk(Disk):
    """A negative control: says that it synced, and keeps nothing that was written since it was made."""

    def write(self, descriptor: int, data: bytes, at: int) -> None:
        return


def test_the_reader_would_tell_a_disk_that_keeps_nothing(folder: Path) -> None:
    log = opened(folder, ForgetfulDisk())
    log.append(entries(0, 3))
    assert numbers(log) == []
    assert [(d.first, d.end) for d in log.damaged] == [(0, 3)]
    log.close()
