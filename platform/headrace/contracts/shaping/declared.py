"""Define what a field may declare about its shaping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.contracts.shaping.paths import Path, parse_path

if TYPE_CHECKING:
    import polars as pl

#: What ``hashed`` may name besides fields: the record's bytes; its cursor, offset and index.
PAYLOAD, POSITION = "payload", "position"
#: Names of the declarations, in the order of ``field``.
DECLARATIONS = (
    "alias", "path", "format", "zone", "lower", "strip", "nulls", "constant", "derive", "hashed", "landed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The shaping of one field; see ``headrace.contracts.field``.

    Attributes:
        alias: Other names in the message, the first one present counts.
        path: Place of the value in the message; empty for the field's own name.
        formats: Formats of a time or date, tried one after the other; empty for the standard one.
        zone: Zone of times that come without one; empty for none.
        lower: Whether text becomes lower case.
        strip: Whether white space around text is taken off.
        nulls: Texts that mean null.
        constant: The value of every record; None if there is none.
        derive: Computes the field from other fields; None if it is read.
        hashed: Fields whose hash it is, or ``payload`` or ``position``; empty if it is read.
        landed: Whether it is a column of the tables.
    """

    alias: tuple[str, ...] = ()
    path: Path = ()
    formats: tuple[str, ...] = ()
    zone: str = ""
    lower: bool = False
    strip: bool = False
    nulls: tuple[str, ...] = ()
    constant: Any = None
    derive: pl.Expr | None = None
    hashed: tuple[str, ...] | str = ()
    landed: bool = True

    @property
    def computed(self) -> bool:
        """Whether the field is not read from the message."""
        return self.constant is not None or self.derive is not None or bool(self.hashed)

    def places(self, name: str) -> tuple[Path, ...]:
        """Return where in a message the field may be, the first place first; none for a computed field.

        Args:
            name: The field's own name, which counts first; with a path, that counts instead.
        """
        if self.computed:
            return ()
        return (self.path or (name,), *((alias,) for alias in self.alias))


def shape_of(declared: Mapping[str, Any]) -> Shape | None:
    """Return the shaping among the metadata of a field that ``faults`` has passed; None if there is none."""
    given = {name: declared[name] for name in DECLARATIONS if name in declared}
    if not given:
        return None
    return Shape(
        alias=_several(given.get("alias", ())),
        path=parse_path(given["path"]) if "path" in given else (),
        formats=_several(given.get("format", ())),
        zone=given.get("zone", ""),
        lower=given.get("lower", False),
        strip=given.get("strip", False),
        nulls=_several(given.get("nulls", ())),
        constant=given.get("constant"),
        derive=given.get("derive"),
        hashed=given["hashed"]
        if given.get("hashed") in (PAYLOAD, POSITION)
        else _several(given.get("hashed", ())),
        landed=given.get("landed", True),
    )


def _several(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
