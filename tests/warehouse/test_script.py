"""A script is cut into statements where ClickHouse's lexer would cut it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import Fatal
from headrace.local.clickhouse.statement import tokens
from headrace.warehouse.migrations.files import read_migrations
from headrace.warehouse.migrations.script import statements

TEXT = st.text(st.sampled_from("ab;'\"`\\$-/*# \n"), max_size=8)


def _escaped(text: str, mark: str) -> str:
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


LITERAL = st.builds(_escaped, TEXT, st.sampled_from("'\"`"))
DOUBLED = TEXT.map(lambda t: "'" + t.replace("\\", "").replace("'", "''") + "'")
HEREDOC = TEXT.map(lambda t: "$x$" + t.replace("$", "") + "$x$")
COMMENT = st.one_of(
    TEXT.map(lambda t: "--" + t.replace("\n", "") + "\n"),
    TEXT.map(lambda t: "# " + t.replace("\n", "") + "\n"),
    TEXT.map(lambda t: "/*" + t.replace("/", "").replace("*", "") + "*/"),
    TEXT.map(lambda t: "/* /*" + t.replace("/", "").replace("*", "") + "*/ */"),
)
WORD = st.sampled_from(["SELECT", "1", "(", ")", "CODEC", ",", "-", "/", "*"])
PIECE = st.one_of(LITERAL, DOUBLED, HEREDOC, WORD)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(PIECE, st.none() | COMMENT), min_size=1, max_size=6), max_size=5))
def test_what_was_put_together_comes_apart_again(script: list[list[tuple[str, str | None]]]) -> None:
    whole = ";\n".join(" ".join(f"{piece} {note or ''}" for piece, note in one) for one in script)
    found = statements(whole)
    assert [one.split() for one in found] == [" ".join(piece for piece, _ in one).split() for one in script]


@settings(deadline=None)
@given(st.text(st.sampled_from("a1;'\"`\\$-/*# \n(),‘’“”"), max_size=40))
def test_any_text_is_cut_as_the_endpoint_cuts_it(text: str) -> None:
    """Another scanner, which was written against the engine, sees the same number of statements."""
    try:
        found = statements(text)
    except Fatal:
        return
    kinds = [(t.kind, t.text) for t in tokens(text)]
    cut: list[list[str]] = [[]]
    for kind, token in kinds:
        if (kind, token) == ("sign", ";"):
            cut.append([])
        else:
            cut[-1].append(token)
    assert len(found) == len([one for one in cut if one])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 'a\n;", "line 1: '"),
        ("SELECT 1;\n/* a /* b */", "line 2: the comment"),
        ("\n`a", "line 2: `"),
    ],
)
def test_what_never_ends_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Fatal, match=said):
        statements(text)


def test_a_script_of_comments_has_no_statements() -> None:
    assert statements("-- one;\n/* two; */ ;;\n") == []
    assert statements("SELECT 1") == ["SELECT 1"]


def test_every_migration_has_statements() -> None:
    assert all(one.statements("raw") for one in read_migrations())
