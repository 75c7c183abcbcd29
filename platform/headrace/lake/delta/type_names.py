"""Name the types of columns as the protocol of Delta Lake does."""

from __future__ import annotations

import pyarrow as pa
from deltalake import Field
from deltalake.schema import ArrayType, MapType, PrimitiveType


def type_name(kind: pa.DataType) -> str:
    """Return the name of the Delta type in which an Arrow type is stored."""
    found = Field.from_arrow(pa.field("any", kind)).type
    if isinstance(found, PrimitiveType):
        return found.type
    if isinstance(found, ArrayType):
        return f"array<{type_name(kind.value_type)}>"
    if isinstance(found, MapType):
        return f"map<{type_name(kind.key_type)}, {type_name(kind.item_type)}>"
    return f"struct<{', '.join(f'{one.name}: {type_name(one.type)}' for one in kind)}>"
