"""Exports of contracts, read by the tools that producers have: what these write lands, what they refuse is rejected."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pandera.polars as pa
import polars as pl
import pydantic
import pytest
from polars.testing import assert_frame_equal

from commands import run_text
from grown import ORDERS
from headrace.contracts import EVENTS, METRICS, Contract, Time, field
from headrace.contracts.export import FORMS, exported
from headrace.core.batch import CheckedBatch
from headrace.core.errors import Fatal
from headrace.core.schemas import Schema
from headrace.formats.registered.avro import AvroReader
from shaped import VISITS
from wide import RECORD, WIDE

fastavro = pytest.importorskip("fastavro")
Judge = Callable[..., CheckedBatch]
CONTRACTS = [EVENTS, METRICS, ORDERS, VISITS, WIDE]
SAMPLES: dict[str, dict[str, Any]] = {
    "events": {
        "event_id": "1", "event_type": "page.view", "occurred_at": "2026-01-02T03:04:05Z", "session_id": "s",
        "channel": "web", "duration_ms": 1.5, "properties": {"a": 1}, "schema_version": 1,
    },
    "metrics": {
        "metric_id": "1", "name": "cpu", "kind": "gauge", "value": 1.5, "source": "host",
        "dimensions": {"a": "b"}, "occurred_at": "2026-01-02T03:04:05Z", "schema_version": 1,
    },
    "orders": {
        "order_id": "1", "at": "2026-01-02T03:04:05Z", "quantity": 2**53, "store": "s", "price": 1.5,
        "country": "DE", "channel": "app", "amount": 3.0, "properties": {}, "schema_version": 3,
    },
    "visits": {
        "at": "2024-03-13 10:21:14", "user": "anna", "day": "13.03.2024", "price": 2.5, "quantity": 3,
        "channel": "WEB", "tags": ["a", None], "note": "n",
        "context": {"page": {"url": "/a"}, "screen.width": 640}, "items": [{"sku": "x"}],
    },
    "wide": {**RECORD, "anything": {"a": 1, "b": None}},
}  # fmt: skip
#: Changes that each contract rejects, and that its models refuse.
WRONG: list[tuple[Contract, dict[str, Any]]] = [
    (EVENTS, {"event_id": ""}),
    (EVENTS, {"event_id": None}),
    (EVENTS, {"event_type": "Page"}),
    (EVENTS, {"channel": "tv"}),
    (EVENTS, {"duration_ms": -1.0}),
    (EVENTS, {"duration_ms": "1"}),
    (EVENTS, {"occurred_at": "yesterday"}),
    (METRICS, {"dimensions": {"a": 1}}),
    (ORDERS, {"amount": 1e7}),
    (ORDERS, {"quantity": -1}),
    (ORDERS, {"quantity": 1.5}),
    (WIDE, {"i8": 128}),
    (WIDE, {"u64": 2**64}),
    (WIDE, {"price": 1.234}),
    (WIDE, {"kind": "tv"}),
    (WIDE, {"uid": "1"}),
    (WIDE, {"places": [{"fee": "1.1251"}]}),
    (WIDE, {"address": {"number": 256}}),
]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Contract], Any]]:
    """``models(contract)``: the model of its messages, from the exported module in a file of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded: list[str] = []

    def load(contract: Contract) -> Any:
        name = f"exported_{contract.name}_{len(loaded)}"
        (tmp_path / f"{name}.py").write_text(exported(contract, "pydantic"))
        loaded.append(name)
        module: ModuleType = __import__(name)
        return getattr(module, contract.name.capitalize())

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def compact(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def landed(judge: Judge, contract: Contract, payload: bytes) -> pl.DataFrame:
    found = judge(contract, [payload], now=datetime(2026, 6, 1, tzinfo=UTC))
    assert found.rejected["reasons"].to_list() == []
    return found.good


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_json_schema_accepts_what_lands(judge: Judge, contract: Contract) -> None:
    schema = json.loads(exported(contract, "json-schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    sample = SAMPLES[contract.name]
    landed(judge, contract, json.dumps(sample).encode())
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(sample)] == []
    assert list(jsonschema.Draft202012Validator(schema).iter_errors({**sample, "at": [], "occurred_at": []}))


def test_json_schema_marks_what_is_retired() -> None:
    properties = json.loads(exported(ORDERS, "json-schema"))["properties"]
    assert [name for name, one in properties.items() if one.get("deprecated")] == ["legacy"]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_what_the_models_write_lands_as_what_they_read(
    judge: Judge, contract: Contract, models: Callable[[Contract], Any]
) -> None:
    sample = compact(SAMPLES[contract.name])
    message = models(contract).model_validate_json(sample).model_dump_json(exclude_none=True, by_alias=True)
    assert_frame_equal(landed(judge, contract, message.encode()), landed(judge, contract, sample))


@pytest.mark.parametrize(
    ("contract", "change"), WRONG, ids=lambda one: one.name if isinstance(one, Contract) else one
)
def test_what_the_models_refuse_is_rejected(
    judge: Judge, contract: Contract, change: dict[str, Any], models: Callable[[Contract], Any]
) -> None:
    wrong = json.dumps({**SAMPLES[contract.name], **change}).encode()
    with pytest.raises(pydantic.ValidationError):
        models(contract).model_validate_json(wrong)
    assert judge(contract, [wrong], now=datetime(2026, 6, 1, tzinfo=UTC)).good.height == 0


def test_a_model_is_built_from_pythons_values(judge: Judge, models: Callable[[Contract], Any]) -> None:
    order = models(ORDERS)(order_id="1", at=datetime(2026, 1, 2, tzinfo=UTC), amount=1.5, schema_version=3)
    message = order.model_dump_json(exclude_none=True, by_alias=True)
    assert landed(judge, ORDERS, message.encode())["channel"].to_list() == ["web"]
    with pytest.raises(pydantic.ValidationError):
        models(ORDERS)(order_id="1", at=datetime(2026, 1, 2), schema_version=3)


def test_names_that_mean_something_to_python_or_pydantic_stay_names_of_the_message(
    judge: Judge, models: Callable[[Contract], Any]
) -> None:
    class Odd(pa.DataFrameModel):
        """Says "hello" and \\."""

        id: pl.String = field('the "id"', required=True)
        at: Time = field("time", required=True)
        str: pl.String = field("a text", path="context.str")
        float: pl.Float64 = field("a number")
        json: pl.String = field("what", nulls=("", "null"))
        model_year: pl.Int16 = field("year", ge=2000)

    odd = Contract("odd", 1, Odd, key="id", time="at", partition="odd_date", order_by=("at",))
    sample = {"id": "1", "at": "2026-01-02T03:04:05Z", "context": {"str": "x"}, "float": 1.5, "json": "a"}
    message = compact({**sample, "model_year": 2026})
    written = models(odd).model_validate_json(message).model_dump_json(exclude_none=True, by_alias=True)
    assert_frame_equal(landed(judge, odd, written.encode()), landed(judge, odd, message))
    assert json.loads(written)["context"] == {"str": "x"}


def test_other_fields_are_refused_where_the_contract_does(models: Callable[[Contract], Any]) -> None:
    sample = json.dumps({**SAMPLES["orders"], "other": 1}).encode()
    models(ORDERS).model_validate_json(sample)
    with pytest.raises(pydantic.ValidationError, match="other"):
        models(replace(ORDERS, unknown="reject")).model_validate_json(sample)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_what_avro_writes_lands_as_json_does(
    judge: Judge, contract: Contract, models: Callable[[Contract], Any]
) -> None:
    text = exported(contract, "avro")
    schema = fastavro.parse_schema(json.loads(text))
    sample = compact(SAMPLES[contract.name])
    record = models(contract).model_validate_json(sample).model_dump(exclude_none=True, by_alias=True)
    if contract is WIDE:  # integers of 64 bits without a sign are decimals in Avro
        record["u64"], record["sizes"] = (
            Decimal(record["u64"]),
            [n and Decimal(n) for n in [0, 2**64 - 1, None]],
        )
        record["sizes"][0] = Decimal(0)
        record["blob"] = b"\x00\xff"  # the model gives it back in base64, which is for JSON
        # defaults that Avro cannot say
        record |= {"big": Decimal(2**64 - 1), "first": date(2020, 2, 29), "fee": Decimal("1.250")}
    if contract is VISITS:  # `screen.width` is no name in Avro, its alias is
        record["w"] = record["context"].pop("screen.width")
    file = io.BytesIO()
    fastavro.schemaless_writer(file, schema, record, strict_allow_default=True)
    [payload] = AvroReader(Schema("AVRO", text)).read(pl.Series([file.getvalue()])).payloads.to_list()
    assert_frame_equal(landed(judge, contract, payload), landed(judge, contract, sample))


def test_avro_knows_earlier_names_and_defaults() -> None:
    schema = json.loads(exported(ORDERS, "avro"))
    fields = {one["name"]: one for one in schema["fields"]}
    assert fields["store"]["aliases"] == ["shop"]
    assert (fields["channel"]["type"], fields["channel"]["default"]) == ("string", "web")
    assert "legacy" not in fields
    # a reader of the newest schema reads what a producer of the first one wrote
    old = fastavro.parse_schema(json.loads(exported(ORDERS.at(1), "avro")))
    file = io.BytesIO()
    record = {"order_id": "1", "at": datetime(2026, 1, 2, tzinfo=UTC), "quantity": 7, "shop": "s", "legacy": "x",
              "schema_version": 1}  # fmt: skip
    fastavro.schemaless_writer(file, old, record)
    file.seek(0)
    found = fastavro.schemaless_reader(file, old, fastavro.parse_schema(schema))
    assert (found["store"], found["quantity"], found["channel"]) == ("s", 7, "web")


def test_a_name_that_avro_does_not_have_is_named() -> None:
    class Odd(pa.DataFrameModel):
        """Odd."""

        id: pl.String = field("id", path="the-id", required=True)
        at: Time = field("time", required=True)

    odd = Contract("odd", 1, Odd, key="id", time="at", partition="odd_date", order_by=("at",))
    with pytest.raises(Fatal, match="'the-id' in messages is no name in Avro"):
        exported(odd, "avro")
    assert '"the-id": string;' in exported(odd, "typescript")


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_typescript_has_each_field_once_and_is_balanced(contract: Contract, tmp_path: Path) -> None:
    text = exported(contract, "typescript")
    for a, b in (("{", "}"), ("(", ")"), ("<", ">")):
        code = re.sub(r'/\*\*.*?\*/|//.*|"[^"]*"', "", text)
        assert code.count(a) == code.count(b)
    interface = text.split(f"export interface {contract.name.capitalize()} {{")[1].split("\n}")[0]
    found = re.findall(r'^  ("[^"]+"|\w+)(\??):', interface, re.MULTILINE)
    needed = [name for name, optional in found if not optional]
    schema = json.loads(exported(contract, "json-schema"))
    asked = set(schema["required"]) | ({"at", "user"} if contract is VISITS else set())
    assert set(needed) == asked & {name for name, _ in found}
    assert len({name for name, _ in found}) == len(found)
    if tsc := shutil.which("tsc"):
        (tmp_path / "a.ts").write_text(text)
        subprocess.run([tsc, "--noEmit", "--strict", str(tmp_path / "a.ts")], check=True)


def test_typescript_says_choices_and_checks() -> None:
    text = exported(EVENTS, "typescript")
    assert '  channel: "web" | "mobile" | "chat" | "server" | "iot" | "other";' in text
    assert "  duration_ms?: number | null;" in text
    assert "1 to 128 characters" in text


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.name)
def test_markdown_has_a_row_for_each_field(contract: Contract) -> None:
    lines = exported(contract, "markdown").splitlines()
    assert lines[0] == f"# {contract.name}, version {contract.version}"
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == len([c for c in contract.read_columns if c.growth.retired is None])
    assert all(len(re.split(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_markdown_says_what_each_version_changed() -> None:
    text = exported(ORDERS, "markdown")
    assert "- Version 3: `store` renamed, shop to store; `legacy` retired, String to retired=3." in text
    assert "- Version 2: `quantity` widened, Int32 to Int64;" in text
    assert "No longer asked for, and ignored if it comes: `legacy`." in text
    assert "versions 1 to 3 can be sent" in text
    assert "## Versions" not in exported(EVENTS, "markdown")


@pytest.mark.parametrize("form", FORMS)
def test_an_older_version_is_exported_as_it_was(form: str) -> None:
    now, then = exported(ORDERS, form), exported(ORDERS.at(1), form)
    assert "legacy" in then
    assert "shop" in then
    assert "country" in now
    assert "country" not in then
    assert now.endswith("\n") and not now.endswith("\n\n")


@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_an_export(form: str, tmp_path: Path) -> None:
    done = run_text(
        "contracts", "export", "events", "--format", form, env={"HEADRACE_HOME": str(tmp_path), "PATH": ""}
    )
    assert (done.stdout, done.stderr) == (exported(EVENTS, form), "")


def test_a_version_that_is_none_is_named(tmp_path: Path) -> None:
    done = run_text("contracts", "export", "events", "--version", "9", env={"HEADRACE_HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert "contract 'events' accepts versions 1 to 1, not 9" in done.stderr
