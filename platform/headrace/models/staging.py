"""Find models of a project that name the columns of a raw table, and say what they lack since a contract grew.

A model that only selects ``*`` follows by itself. One that lists columns is a person's text, so it is not changed:
what to write, and on which line, is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.contracts import Column, Contract
from headrace.models.sources import own_streams
from headrace.pipelines import Discovered

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ModelEdit:
    """What a model lacks of a contract.

    Attributes:
        path: File of the model.
        line: The line that it is about, from 1.
        said: What to write there.
    """

    path: Path
    line: int
    said: str

    def __str__(self) -> str:
        path = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        return f"{path}, line {self.line}: {self.said}"


def edits(dbt: Path, found: Discovered) -> list[ModelEdit]:
    """List what models that read raw tables of a project's streams lack of columns that came later or were renamed.

    A model that leaves a column out on purpose names it in a comment.

    Args:
        dbt: Folder of the dbt project.
        found: All streams.
    """
    grown = {name: one.contract for name, one in own_streams(found).items() if _grew(one.contract)}
    texts = (
        {path: path.read_text(encoding="utf-8") for path in sorted((dbt / "models").rglob("*.sql"))}
        if grown
        else {}
    )
    return [
        edit
        for name, contract in grown.items()
        for path, text in texts.items()
        if re.search(rf"source\(\s*(['\"])raw\1\s*,\s*(['\"]){re.escape(name)}\2\s*\)", text)
        for edit in _lacks(path, text, contract)
    ]


def _grew(contract: Contract) -> bool:
    return any(one.growth.since > 1 or one.growth.earlier(one.name) for one in contract.columns)


def _lacks(path: Path, text: str, contract: Contract) -> Iterator[ModelEdit]:
    lines = [set(_WORD.findall(line)) for line in text.splitlines()]
    named = set().union(*lines)
    known = {one for column in contract.columns for one in (column.name, *column.growth.earlier(column.name))}
    if not named & known:
        return  # it lists none
    at = next((n for n, words in enumerate(lines, 1) if words & known), 1)
    for column in contract.columns:
        if column.name in named:
            at = _line_of(column.name, lines)
            continue
        old = next((one for one in column.growth.earlier(column.name) if one in named), "")
        if old:
            at = _line_of(old, lines)
            yield ModelEdit(
                path,
                at,
                f"write '{column.name}' instead of '{old}', or '{column.name} as {old}' for those who read it",
            )
        elif _came_later(column):
            yield ModelEdit(
                path, at, f"add '{column.name},' after this line, or a comment that names it to leave it out"
            )


def _came_later(column: Column) -> bool:
    return column.growth.since > 1 and column.growth.retired is None


def _line_of(name: str, lines: list[set[str]]) -> int:
    return next(n for n, words in enumerate(lines, 1) if name in words)
