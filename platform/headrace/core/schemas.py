"""Define what a schema registry holds, for whoever asks it and for whoever reads messages by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from headrace.core.errors import BadData

Kind = Literal["AVRO", "JSON", "PROTOBUF"]


@dataclass(frozen=True, slots=True)
class Schema:
    """A registered schema with everything that it refers to.

    Attributes:
        kind: Its language.
        text: The schema.
        references: Name and text of the schemas that it refers to, directly or not; none needs a later one.
    """

    kind: Kind
    text: str
    references: tuple[tuple[str, str], ...] = ()


def kind_of(name: str | None) -> Kind:
    """Return a schema's language by the registry's name for it, which leaves Avro away.

    Raises:
        BadData: It is another one.
    """
    kind = name or "AVRO"
    if kind not in get_args(Kind):
        raise BadData(f"its language is {kind}; there are {', '.join(get_args(Kind))}")
    return cast("Kind", kind)
