"""Small state files: whole at any moment, whoever writes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.core.atomic import make_folder, write_atomically

WRITER = """
import sys
from pathlib import Path
from headrace.core.atomic import write_atomically
path, letter = Path(sys.argv[1]), sys.argv[2]
for length in range(1, 1_501):
    write_atomically(path, letter * (1 + length % 700))
    seen = path.read_text()
    assert seen and set(seen) in ({"a"}, {"b"}, {"c"}), seen[:20]
"""


def test_three_processes_write_and_every_reader_sees_one_content(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "state.json"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter], stderr=subprocess.PIPE)
        for letter in "abc"
    ]
    said = [writer.communicate()[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], said
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing is left beside it"


def test_what_cannot_be_written_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def no_room(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", no_room)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]
    assert path.read_bytes() == b"old"


def test_what_is_synced_was_synced_before_and_after_it_got_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append("name")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(tmp_path / "a" / "b" / "state.json", "new", synced=True)
    assert done == ["folder", "folder", "file", "name", "folder"], "of a, of b, the content, its name"
    done.clear()
    write_atomically(tmp_path / "a" / "other.json", "new")
    make_folder(tmp_path / "c")
    assert done == ["name"]
