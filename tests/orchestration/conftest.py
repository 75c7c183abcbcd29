"""The definitions of an installation on the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from dagster import Definitions

from conftest import Stack
from headrace.config.settings import Settings, adopt
from headrace.health import checks
from headrace.orchestration import definitions


@pytest.fixture(scope="module")
def adopted(stack: Stack) -> Iterator[Settings]:
    """This process's settings point at the embedded stack, as a code location's do."""
    from headrace.config.settings import settings

    before = dict(os.environ)
    # days that other tests leave unbuilt are late by the time that a slow machine gets here
    yield adopt({**stack.environment, "HEADRACE_MAX_BEHIND_SECONDS": "86400"})
    os.environ.clear()
    os.environ.update(before)
    settings.cache_clear()


@pytest.fixture(scope="module")
def defs(adopted: Settings) -> Definitions:
    return definitions.build(adopted)


@pytest.fixture(autouse=True)
def _nothing_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that other tests left in a topic are waited for by nobody: no run comes to land them."""
    monkeypatch.setattr(checks, "GRACE_SECONDS", 0.0)
