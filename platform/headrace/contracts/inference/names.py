"""Make SQL identifiers of the names in messages."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

import pandera.polars as pa

from headrace.contracts.verify import IDENTIFIER

_LONGEST = 56  # of 63 characters; the rest is for a number
#: Names that the class body of a generated contract uses itself.
_USED = frozenset({"field", "pl", "pa", "Time", "Annotated", "Contract", "Config", "STRING_MAP"})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@cache
def _reserved() -> frozenset[str]:
    return _USED | frozenset(dir(pa.DataFrameModel))


def identifier(name: str) -> str:
    """Make a name in snake_case of any text; ``field`` if nothing of it can be kept."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", _CAMEL.sub("_", plain)).strip("_").lower()
    if not words:
        return "unnamed"
    if words[0].isdigit():
        words = f"n_{words}"
    return words[:_LONGEST].rstrip("_")


def usable(name: str) -> bool:
    """Tell whether a column may have this name in a contract."""
    return bool(IDENTIFIER.fullmatch(name)) and not keyword.iskeyword(name) and name not in _reserved()


def column_names(paths: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Name the column of each field.

    A field whose own name is an identifier in lower case keeps it. No two names differ in case alone.

    Args:
        paths: Names in the message, from the outermost object.
    """
    wanted = list(dict.fromkeys(paths))
    found: dict[tuple[str, ...], str] = {}
    taken: set[str] = set()
    for path in wanted:
        own = path[0]
        if (
            len(path) == 1
            and usable(own)
            and own == own.lower()
            and own not in taken
            and len(own) <= _LONGEST
        ):
            found[path] = own
            taken.add(own)
    for path in wanted:
        if path not in found:
            found[path] = free(identifier("_".join(path)), taken)
            taken.add(found[path])
    return {path: found[path] for path in wanted}


def free(name: str, taken: Iterable[str]) -> str:
    """Return the name, or one like it that is not taken."""
    used = set(taken)
    if not usable(name):
        name = f"{name}_value"
    found, number = name, 2
    while found in used:
        found, number = f"{name}_{number}", number + 1
    return found
