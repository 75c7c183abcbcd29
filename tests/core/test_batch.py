"""What every room builds on works in threads, too."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Two threads that are the first to use NumPy through Polars.
TOGETHER = """
import threading
{first}
import polars.series.series as series

both, failures = threading.Barrier(2), []

def use(numpy=series.np):
    both.wait()
    try:
        numpy.dtype
    except Exception as failure:
        failures.append(failure)

threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures)
"""


def failures(first: str) -> str:
    program = TOGETHER.format(first=first)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_threads_may_be_the_first_to_use_numpy_through_polars() -> None:
    assert failures("import headrace.core.batch") == "[]\n"


def test_and_polars_alone_still_fails_so_that_this_is_needed() -> None:
    if not any("item assignment" in failures("import polars") for _ in range(20)):
        pytest.fail("Polars has mended it: remove the line in core/batch.py, and this file")
