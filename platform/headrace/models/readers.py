"""Name the models that are made of a raw table's column, from the lineage of the last project that parsed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.models import lineage
from headrace.models.versions import last_parsed

if TYPE_CHECKING:
    from headrace.config.settings import Settings


class Readers:
    """Models by the raw columns that they are made of, directly or through other models.

    Columns that a model only filters by are in no lineage.
    """

    def __init__(self, manifest: Mapping[str, Any], found: lineage.Lineage) -> None:
        """Follow the lineage of all models.

        Args:
            manifest: The project's manifest.
            found: The lineage beside it.
        """
        self._tables = {name: source["name"] for name, source in manifest["sources"].items()}
        self._names = {name: node["name"] for name, node in manifest["nodes"].items()}
        self._made: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for model, node in manifest["nodes"].items():
            for column, made_of in found.of(node).items() if node["resource_type"] == "model" else ():
                for one in made_of:
                    self._made.setdefault(one, set()).add((model, column))

    def of(self, table: str, column: str) -> list[str]:
        """Return the names of the models that are made of a raw column, sorted."""
        waiting = [(source, column) for source, name in self._tables.items() if name == table]
        seen = set(waiting)
        while waiting:
            for one in self._made.get(waiting.pop(), ()):
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        return sorted({self._names[node] for node, _ in seen if node in self._names})


def readers(settings: Settings) -> Readers | None:
    """Return the readers of the last project that parsed here; None if none has. Nothing is parsed for it."""
    version = last_parsed(settings)
    if version is None:
        return None
    try:
        return Readers(json.loads(version.manifest.read_bytes()), lineage.read(version.manifest))
    except (OSError, ValueError, KeyError):  # removed or damaged meanwhile: nobody is named
        return None
