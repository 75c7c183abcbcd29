"""Write a contract in the languages of those who produce: JSON Schema, Avro, TypeScript, Pydantic, Markdown.

``message`` works out the message that a producer sends, places and names included; each form is one file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.contracts.export.avro import avro
from headrace.contracts.export.markdown import markdown
from headrace.contracts.export.pydantic_models import pydantic_models
from headrace.contracts.export.typescript import typescript
from headrace.contracts.schema import json_schema

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

__all__ = ["FORMS", "exported"]


def _json(make: Callable[[Contract], object]) -> Callable[[Contract], str]:
    return lambda contract: json.dumps(make(contract), indent=2, ensure_ascii=False) + "\n"


#: Forms in which a contract can be written, by name.
FORMS: dict[str, Callable[[Contract], str]] = {
    "json-schema": _json(json_schema),
    "avro": _json(avro),
    "markdown": markdown,
    "typescript": typescript,
    "pydantic": pydantic_models,
}


def exported(contract: Contract, form: str) -> str:
    """Return a contract as text in one of ``FORMS``, which ends with a newline.

    Raises:
        Fatal: The form cannot say what the contract does: a name that Avro does not have.
    """
    return FORMS[form](contract)
