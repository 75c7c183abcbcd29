"""Name the models that BI tools see: those in the database of the marts, but what is marked ``bi: false``.

A model of another schema that numbers are counted in is marked with that schema: ``bi: speed``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from headrace.models import composition

if TYPE_CHECKING:
    from headrace.config.settings import Settings

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def hidden(settings: Settings) -> tuple[str, ...]:
    """Return the names of the models that say ``bi: false`` in their meta, from the YAML files that are there now.

    A file that does not parse, or is of another shape, hides nothing: dbt names it as soon as it runs.
    """
    return tuple(sorted({name for name, bi in _marked(settings) if bi is False}))


def beside(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return database and name of the models beside the marts that BI tools read, too: ``bi: SCHEMA`` in their meta."""
    found = {
        (f"{settings.dbt_schema}_{bi}", name)
        for name, bi in _marked(settings)
        if isinstance(bi, str) and bi.isidentifier()
    }
    return tuple(sorted(found))


def _marked(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield models with what they say of ``bi`` in their meta."""
    found = composition.parts(settings)
    folders = [folder / "models" for folder in (found.root, found.package) if folder]
    for file in (file for folder in folders for file in sorted(folder.rglob("*.y*ml"))):
        document = _loaded(file.read_bytes())
        models = document.get("models") if isinstance(document, dict) else None
        for model in models if isinstance(models, list) else ():
            if isinstance(model, dict) and "name" in model and "bi" in (meta := _meta(model)):
                yield str(model["name"]), meta["bi"]


def _loaded(text: bytes) -> Any:
    if b"bi:" not in text:
        return None
    try:
        return yaml.load(text, _LOADER)
    except yaml.YAMLError:
        return None


def _meta(model: Mapping[str, Any]) -> Mapping[str, Any]:
    config = model.get("config")
    meta = config.get("meta") if isinstance(config, dict) else model.get("meta")
    return meta if isinstance(meta, dict) else {}


def is_hidden(meta: Mapping[str, Any]) -> bool:
    """Tell whether a model's meta keeps it from BI tools."""
    return meta.get("bi") is False
