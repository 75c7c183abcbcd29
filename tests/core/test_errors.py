"""Errors cross the border between processes: runs, benches and pools hand them on by pickle."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from headrace.core.errors import HeadraceError
from headrace.warehouse.server import Refused


def kinds(of: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    yield of
    for one in of.__subclasses__():
        yield from kinds(one)


CORE = [one for one in kinds(HeadraceError) if one.__module__ == HeadraceError.__module__]


@pytest.mark.parametrize("kind", [*CORE, Refused])
def test_an_error_arrives_as_it_was(kind: type[HeadraceError]) -> None:
    found = pickle.loads(pickle.dumps(kind("what was said")))
    assert (type(found), str(found)) == (kind, "what was said")


def test_what_an_error_knows_besides_arrives_too() -> None:
    assert pickle.loads(pickle.dumps(Refused("no such table", 60))).code == 60
