"""Models by the raw columns that they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.config.settings import load_settings
from headrace.models import lineage
from headrace.models.lineage import Lineage
from headrace.models.readers import Readers, readers

SOURCE, STAGING, MART, OTHER = (
    "source.shop.raw.orders",
    "model.shop.stg_orders",
    "model.shop.daily",
    "model.shop.other",
)


def node(name: str, kind: str = "model") -> dict[str, Any]:
    return {
        "unique_id": name,
        "name": name.rpartition(".")[2],
        "resource_type": kind,
        "checksum": {"checksum": "1"},
    }


MANIFEST: dict[str, Any] = {
    "sources": {SOURCE: {"name": "orders"}},
    "nodes": {name: node(name) for name in (STAGING, MART, OTHER)}
    | {"test.shop.t": node("test.shop.t", "test")},
}
FOUND: dict[str, Any] = {
    STAGING: {"checksum": "1", "columns": {"id": [[SOURCE, "order_id"]], "amount": [[SOURCE, "amount"]]}},
    MART: {"checksum": "1", "columns": {"paid": [[STAGING, "amount"]], "twice": [[MART, "paid"]]}},
    OTHER: {"checksum": "1", "columns": {"ids": [[STAGING, "id"]]}},
}


def test_models_are_named_through_other_models() -> None:
    found = Readers(MANIFEST, Lineage(FOUND))
    assert found.of("orders", "amount") == ["daily", "stg_orders"]
    assert found.of("orders", "order_id") == ["other", "stg_orders"]
    assert found.of("orders", "coupon") == []
    assert found.of("visits", "amount") == []


def test_a_model_that_was_edited_since_names_nobody() -> None:
    edited = {**FOUND, MART: {**FOUND[MART], "checksum": "2"}}
    assert Readers(MANIFEST, Lineage(edited)).of("orders", "amount") == ["stg_orders"]


def test_the_last_project_that_parsed_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    assert readers(load_settings()) is None  # nothing is parsed for it
    version = tmp_path / "dbt" / "versions" / "0123456789abcdef"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text(json.dumps(MANIFEST))
    (version / lineage.FILE).write_text(json.dumps(FOUND))
    found = readers(load_settings())
    assert found is not None and found.of("orders", "amount") == ["daily", "stg_orders"]
    (version / "manifest.json").write_text("{")
    assert readers(load_settings()) is None
