"""Contract suites of other folders, to be run again with other fixtures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType


def suite(module: ModuleType, *fixtures: str) -> dict[str, Callable[..., None]]:
    """The tests of a contract suite that ask for one of ``fixtures``, by name."""
    return {
        name: test
        for name, test in vars(module).items()
        if name.startswith("test_") and {*fixtures} & {*inspect.signature(test).parameters}
    }
