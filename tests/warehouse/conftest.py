"""Raw databases of their own on the one ClickHouse of a test worker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Stack
from headrace.config.settings import Settings
from headrace.warehouse.clickhouse import ClickHouse


@pytest.fixture
def raw(stack: Stack) -> Settings:
    """Settings with a raw database that nobody has used."""
    return stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})


@pytest.fixture
def clickhouse(raw: Settings) -> Iterator[Callable[..., ClickHouse]]:
    """``clickhouse(**changes)``: a warehouse on ``raw`` with changed settings, as another process would have it."""
    opened: list[ClickHouse] = []

    def make(**changes: Any) -> ClickHouse:
        opened.append(ClickHouse(raw.model_copy(update=changes)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
