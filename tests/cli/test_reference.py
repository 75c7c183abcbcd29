"""The reference of contracts is what the code says."""

from __future__ import annotations

import inspect
from pathlib import Path

import pandera.polars as pa
import polars as pl
import pytest

from headrace.cli.reference import reference
from headrace.contracts import field
from headrace.contracts.dtypes import INT_RANGE, wires_of
from headrace.contracts.reference import CHECKS, TYPES, arguments

PAGE = Path(__file__).parents[2] / "docs" / "contract-reference.md"


def test_the_page_is_as_the_code_makes_it() -> None:
    assert PAGE.read_text() == reference(), (
        "write it again: .venv/bin/headrace contracts reference > docs/contract-reference.md"
    )


def test_every_check_of_pandera_that_takes_a_value_is_there() -> None:
    own = set(inspect.signature(field).parameters)
    named = [
        name
        for name, parameter in inspect.signature(pa.Field).parameters.items()
        if (name not in own and name.startswith(("str_", "in_", "is")))
        or name in ("eq", "ne", "gt", "ge", "lt", "le")
        if parameter.default is None
    ]
    assert set(named) <= set(CHECKS), named
    registered = {str(pa.Check.get_builtin_check_fn(name)) for name, _ in CHECKS.values()}
    assert len(registered) == len(CHECKS)


def test_every_type_of_one_column_is_there() -> None:
    named = "".join(written for written, _, _ in TYPES)
    for dtype in (*INT_RANGE, pl.Boolean(), pl.String(), pl.Float32(), pl.Float64(), pl.Date(), pl.Binary()):
        assert wires_of(dtype)
        assert f"pl.{dtype}" in named


def test_an_argument_that_the_docstring_leaves_out_is_a_mistake() -> None:
    def odd(one: int, other: int) -> None:
        """Do something.

        Args:
            one: The first.
        """

    with pytest.raises(KeyError, match="other"):
        list(arguments(odd))
