"""The index of ids: it knows repeats, and other bodies under the same id, and comes back from the log."""

from __future__ import annotations

import hashlib
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace.collector.ids
from headrace.collector.ids import Ids
from headrace.collector.log import DurableLog, Entry
from headrace.core.errors import Fatal

DAYS = timedelta(days=7)


def digest(name: str, body: str = "") -> bytes:
    return (
        hashlib.blake2b(name.encode(), digest_size=16).digest()
        + hashlib.blake2b(body.encode(), digest_size=8).digest()
    )


def test_an_event_is_new_once_and_a_repeat_afterwards_across_restarts(tmp_path: Path) -> None:
    ids = Ids(tmp_path / "ids", DAYS)
    asked = digest("a") + digest("b") + digest("c")
    assert ids.look(asked).new.tolist() == [True] * 3
    ids.add([(0, digest("a") + digest("b")), (1, digest("c"))])
    for _ in range(2):
        found = ids.look(digest("c") + digest("a") + digest("d") + digest("b", "changed"))
        assert found.number.tolist() == [1, 0, -1, 0]
        assert found.other_body.tolist() == [False, False, False, True]
        assert found.new.tolist() == [False, False, True, False]
        assert ids.sync() == 2
        ids.close()
        ids = Ids(tmp_path / "ids", DAYS)
        assert (ids.through, ids.synced) == (2, 2)
    ids.close()


def test_repeats_within_one_call_are_told(tmp_path: Path) -> None:
    ids = Ids(tmp_path / "ids", DAYS)
    found = ids.look(digest("a") + digest("b") + digest("a") + digest("b", "changed"))
    assert found.within.tolist() == [-1, -1, 0, 1]
    assert found.other_body.tolist() == [False, False, False, True]
    assert found.new.tolist() == [True, True, False, False]
    assert ids.look(b"").new.tolist() == []
    with pytest.raises(ValueError, match="24"):
        ids.look(b"x" * 25)
    ids.close()


def test_what_a_crash_took_from_the_index_is_added_again_from_the_log(tmp_path: Path) -> None:
    """Without a sync, the copied folder is what a power cut may leave of the index: nothing."""
    log = DurableLog(tmp_path / "log", limit_bytes=1 << 20, segment_bytes=1 << 10)
    ids = Ids(tmp_path / "ids", DAYS)
    for n in range(50):
        (number,) = log.append([Entry("events", b"{}", digest(f"early {n}"))])
        ids.add([(number, digest(f"early {n}"))])
    ids.sync()
    for n in range(50):
        (number,) = log.append([Entry("events", b"{}", digest(f"late {n}"))])
        ids.add([(number, digest(f"late {n}"))])
    shutil.copytree(tmp_path / "ids", tmp_path / "cut")
    ids.close()
    (tmp_path / "cut" / "LOCK").unlink()
    ids = Ids(tmp_path / "cut", DAYS)
    late = b"".join(digest(f"late {n}") for n in range(50))
    assert ids.through == 50
    assert ids.look(late).new.all(), "the test wants an index that lost something"
    assert ids.catch_up(log) == 50
    assert ids.look(late).number.tolist() == list(range(50, 100))
    assert ids.catch_up(log) == 0
    ids.close()
    ids = Ids(tmp_path / "anew", DAYS)
    assert ids.catch_up(log) == 100
    ids.close()
    log.close()


def test_what_is_added_in_columns_is_what_is_added_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headrace.collector.ids, "_TOGETHER_BYTES", 2_000)
    log = DurableLog(tmp_path / "log", limit_bytes=1 << 20)
    entries = [
        Entry("events", b"{}", b"".join(digest(f"{n % 150}", f"{n}") for n in range(first, first + count)))
        for first, count in zip(range(0, 200, 7), [0, 1, 7, 3, 24] * 6, strict=False)
    ]
    log.append(entries)
    one_by_one, columns = Ids(tmp_path / "one by one", DAYS), Ids(tmp_path / "columns", DAYS)
    one_by_one.add((number, entry.ids) for number, entry in log.read(0))
    assert columns.catch_up(log) == len(entries)
    asked = b"".join(digest(f"{n}", f"{n + 150}") for n in range(150))
    expected, found = one_by_one.look(asked), columns.look(asked)
    assert found.number.tolist() == expected.number.tolist()
    assert found.other_body.tolist() == expected.other_body.tolist()
    assert 0 < expected.new.sum() < 150 and not expected.other_body.all(), "the test wants all kinds"
    assert columns.through == one_by_one.through == len(entries)
    for one in (one_by_one, columns, log):
        one.close()


def test_a_log_made_anew_is_added_from_its_beginning(tmp_path: Path) -> None:
    ids = Ids(tmp_path / "ids", DAYS)
    ids.add([(70, digest("a"))])
    log = DurableLog(tmp_path / "log", limit_bytes=1 << 20)
    log.append([Entry("events", b"{}", digest("b"))])
    assert ids.catch_up(log) == 1
    assert ids.look(digest("a") + digest("b")).number.tolist() == [70, 0]
    ids.close()
    log.close()


def test_ids_that_neither_log_nor_index_has_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = DurableLog(tmp_path / "log", limit_bytes=1 << 20, segment_bytes=1 << 10)
    for n in range(50):
        log.append([Entry("events", b"{}", digest(f"{n}"))])
    ids = Ids(tmp_path / "ids", DAYS)
    ids.add([(0, digest("0"))])
    log.remove(30)
    ids.catch_up(log)
    assert f"lacks entries 1 to {log.oldest - 1}" in caplog.text
    assert ids.look(digest("49")).number.tolist() == [49]
    ids.close()
    log.close()


def test_an_index_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    ids = Ids(tmp_path / "ids", DAYS)
    ids.add([(0, digest("a"))])
    ids.sync()
    ids.close()
    (tmp_path / "ids" / "CURRENT").write_text("nonsense")
    with pytest.raises(Fatal, match="move it away"):
        Ids(tmp_path / "ids", DAYS)


@settings(max_examples=30, deadline=None)
@given(calls=st.lists(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), max_size=8), max_size=12))
def test_it_answers_as_a_dictionary_does(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[tuple[int, int]]]
) -> None:
    ids = Ids(tmp_path_factory.mktemp("ids") / "ids", DAYS)
    known: dict[int, tuple[int, int]] = {}
    for number, call in enumerate(calls):
        found = ids.look(b"".join(digest(f"{name}", f"{body}") for name, body in call))
        seen: dict[int, int] = {}
        accepted = b""
        for place, (name, body) in enumerate(call):
            earlier = known.get(name)
            assert found.number[place] == (-1 if earlier is None else earlier[0])
            if earlier is None and name not in seen:
                seen[name] = body
                accepted += digest(f"{name}", f"{body}")
                assert found.new[place]
            else:
                assert not found.new[place]
                assert found.other_body[place] == (body != (earlier[1] if earlier else seen[name]))
        known |= {name: (number, body) for name, body in seen.items()}
        ids.add([(number, accepted)])
    ids.close()
