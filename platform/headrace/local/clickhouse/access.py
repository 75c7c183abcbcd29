"""Refuse statements that access the host where the engine has no grant to refuse them.

Three layers keep a client inside the server:

* **Grants** (:mod:`.config`) cover table functions and table engines over files, URLs, object stores and other
  servers, the engine's ``default`` database, BACKUP, users and SYSTEM commands, and settings that name files.
* **This scan** covers statements that the engine runs without a grant, because it trusts the program that embeds it:
  ``INTO OUTFILE``, ``FROM INFILE``, the scalar ``file()``, dictionaries over files and commands, ``ATTACH ... FROM``,
  and engines that take a path. The endpoint also appends its own ``INTO OUTFILE`` to every SELECT. The engine's
      grammar
  allows only one, so a clause that the scan overlooks is a syntax error.
* **The sandbox** (:mod:`.sandbox`) covers SQL that is built at run time, which no scan of the text can see
  (``format(..., concat('a String default fi', 'le(...)'), ...)``), and everything that the other two overlook.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from headrace.local.clickhouse.errors import ClickHouseError, denied
from headrace.local.clickhouse.statement import Statement, Token, tokens, unquote

_ENGINES = re.compile(
    r"(replacing|summing|aggregating|collapsing|versionedcollapsing|coalescing|graphite|replicated)*mergetree"
    r"|log|tinylog|stripelog|memory|null|set|join|buffer|merge|view|materializedview|dictionary|alias|loop"
    r"|generaterandom|distributed|timeseries|s3|s3queue|url|gcs|oss|deltalake|deltalakes3|iceberg|icebergs3"
    r"|hudi|kafka|mysql|postgresql|mongodb|redis|azureblobstorage|atomic|ordinary|lazy|replicated|shared"
)
_PATH_ENGINES = frozenset(
    """
    executable executablepool embeddedrocksdb file filelog sqlite arrowstream queryrunner filesystem overlay
    keepermap backup deltalakelocal iceberglocal paimonlocal
    """.split()  # noqa: SIM905
)
_FUNCTIONS = frozenset({"executable", "eval", "python", "arrowstream", "file", "filecluster", "filesystem"})
_SOURCES = frozenset({"CLICKHOUSE", "NULL"})
_FILE_CALL = re.compile(r"\bfile\b[\"`]?\s*(?:(?:/\*|--|#|//).*?)?\(", re.DOTALL)
_SQL_IN_TEXT = re.compile(r"\b(default|materialized|alias|ephemeral|select)\b", re.IGNORECASE)
#: What a reader may begin a statement with. KILL and SET ROLE need no grant where every client is the same user.
_READING = frozenset("SELECT WITH FROM DESCRIBE DESC EXPLAIN EXISTS SHOW USE SET".split())  # noqa: SIM905
_HIGHER_ORDER = re.compile(r"array|map|apply|columns", re.IGNORECASE)


def check(statement: Statement) -> None:
    """Refuse the statements that the module lists.

    Raises:
        ClickHouseError: Code 497, ACCESS_DENIED.
    """
    words = statement.tokens
    for index, token in enumerate(words):
        after = words[index + 1] if index + 1 < len(words) else None
        if after is not None:
            _check_pair(token, after)
        if token.kind == "string":
            _check_text(token.text)
        elif token.name is not None:
            _check_name(words, index, token.name)
    if statement.verb in ("CREATE", "ATTACH", "REPLACE", "ALTER"):
        _check_definition(statement.verb, words)


def check_reading(statement: Statement) -> None:
    """Refuse what a read-only user may not even try; the engine's grants and ``readonly = 2`` refuse the rest.

    Raises:
        ClickHouseError: Code 164, READONLY.
    """
    words = [token for token in statement.tokens if token.text != "("]
    role = statement.verb == "SET" and len(words) > 1 and words[1].is_word("ROLE", "DEFAULT")
    several = any(one.is_word("PARALLEL") and two.is_word("WITH") for one, two in pairwise(words))
    if statement.verb not in _READING or role or several:
        what = "SET ROLE" if role else "PARALLEL WITH" if several else statement.verb
        raise ClickHouseError(164, f"Cannot execute {what} as a read-only user", "READONLY")


def _check_pair(token: Token, after: Token) -> None:
    # a number may run into the word: t.1INTO OUTFILE
    word = token.text.upper() if token.kind in ("word", "number") else ""
    if word.endswith("INTO") and after.is_word("OUTFILE"):
        raise denied("INTO OUTFILE is not allowed: the result goes to the client")
    if word.endswith("FROM") and after.is_word("INFILE"):
        raise denied("FROM INFILE is not allowed: send the data with the request")


def _check_name(words: Sequence[Token], index: int, name: str) -> None:
    """Refuse ``name`` as a function that is called, applied to columns, or passed to a higher-order function."""
    called = index + 1 < len(words) and words[index + 1].text == "("
    if called and name.lower() in _FUNCTIONS and not _is_column_list(words, index):
        raise denied(f"{name}() is not allowed: it reaches the host's files")
    if name == "file" and index:
        before, earlier = words[index - 1], words[index - 2] if index > 1 else None
        applied = before.is_word("APPLY")
        handed = before.text == "(" and earlier is not None and _HIGHER_ORDER.match(earlier.name or "")
        if applied or handed:
            raise denied("file as a function is not allowed: it reads the host's files")


def _is_column_list(words: Sequence[Token], index: int) -> bool:
    """Tell whether the name is a table of ``INSERT INTO name (columns)`` or ``CREATE TABLE name (...)``."""
    if index > 1 and words[index - 1].text == ".":
        index -= 2
    return index > 0 and words[index - 1].is_word("TABLE", "INTO", "VIEW", "DICTIONARY", "EXISTS")


def _check_text(literal: str) -> None:
    """Check SQL inside a string: the structure argument of a table function, or a dictionary's query."""
    text = unquote(literal)
    if _FILE_CALL.search(text) and _SQL_IN_TEXT.search(text):
        raise denied("a string that holds SQL with file() is not allowed: it reads the host's files")


def _check_definition(verb: str, words: Sequence[Token]) -> None:
    dictionary = any(token.is_word("DICTIONARY") for token in words[:4])
    for index, token in enumerate(words[:-2]):
        first, second = words[index + 1], words[index + 2]
        if token.is_word("ENGINE"):
            engine = ((second if first.text == "=" else first).name or "").lower()
            if engine in _PATH_ENGINES or (first.text == "=" and engine and not _ENGINES.fullmatch(engine)):
                raise denied(f"engine {engine} is not allowed: it reaches outside the server's directory")
        if token.is_word("DISK") and second.is_word("DISK"):
            raise denied("disk(...) is not allowed: tables stay on the server's own disk")
        source = (second.name or "").upper()
        if dictionary and token.is_word("SOURCE") and first.text == "(" and source not in _SOURCES:
            raise denied(f"dictionary source {second.text} is not allowed: use CLICKHOUSE or NULL")
        if verb == "ATTACH" and token.is_word("FROM") and first.kind == "string":
            raise denied("ATTACH ... FROM is not allowed: it takes over a host directory")


def may_evaluate(data: bytes, complete: bool) -> bool:
    """Tell whether the expressions in the VALUES of an INSERT may be evaluated.

    The engine evaluates everything but literals, ``file()`` included. So expressions need a body that was read as a
    whole and does not name that function. Literals always pass.
    """
    return complete and b"file" not in data and b"\\x" not in data


def scan(sql: str) -> tuple[Token, ...]:
    """Return the tokens of a fragment (an external table's structure), checked like those of a statement."""
    found = tuple(tokens(sql))
    for index, token in enumerate(found):
        if token.kind == "string":
            _check_text(token.text)
        elif token.name is not None:
            _check_name(found, index, token.name)
    return found
