"""``headrace.testing`` lands files as the platform does, in memory, and says what was refused and why."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from headrace import testing
from headrace.core.errors import BadData, Fatal
from headrace.scaffold.project import create
from headrace.testing import landing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as ``headrace init`` makes it."""
    return create(tmp_path_factory.mktemp("a person") / "shop").root


@pytest.fixture
def shop(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, from inside of which the tests of a person run."""
    monkeypatch.chdir(made / "tests")
    return made


def orders(*lines: str) -> bytes:
    return "\n".join(["order_id,placed_at,country,amount,coupon", *lines, ""]).encode()


GOOD = "o-1,2026-05-01T10:00:00Z,DE,12.5,"


def test_the_streams_of_a_project_are_its_own(shop: Path) -> None:
    assert testing.streams() == ["orders"]
    assert testing.broken() == {}


def test_the_sample_lands_with_types_and_origin(shop: Path) -> None:
    landed = testing.land("orders")
    assert (landed.good.height, landed.rejected.height) == (59, 2)
    assert landed.reasons == {
        "amount: greater_than_or_equal_to(0)": 1, "country: isin(['DE', 'FR', 'IT', 'NL'])": 1
    }  # fmt: skip
    assert landed.good["placed_at"].min() == datetime(2026, 5, 1, 0, 32, 35, tzinfo=UTC)
    assert landed.good["order_date"].unique().sort().to_list() == [date(2026, 5, n) for n in (1, 2, 3)]
    assert landed.good["_offset"].n_unique() == 59
    assert landed.rejected["payload"][0].startswith(b"{")


def test_files_are_read_in_their_order_whatever_they_are(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(orders(GOOD)))
    (tmp_path / "a.ndjson").write_bytes(
        b'{"order_id": "o-2", "placed_at": "2026-05-02T00:00:00Z", "country": "IT", "amount": 1}\nno JSON\n'
    )
    landed = testing.land("orders", tmp_path / "z.csv.gz", tmp_path / "a.ndjson")
    assert landed.good["order_id"].to_list() == ["o-1", "o-2"]
    assert landed.rejected["payload"].to_list() == [b"no JSON"]
    assert list(landed.reasons) == ["json"]


def test_a_path_is_seen_from_the_projects_root(shop: Path) -> None:
    assert testing.land("orders", "data/orders/sample.csv").good.height == 59


def test_what_is_not_there_is_named(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fatal, match="there is no stream 'order'; there are "):
        testing.land("order")
    with pytest.raises(Fatal, match=r"there is no file .*nowhere\.csv"):
        testing.land("orders", "nowhere.csv")
    monkeypatch.setattr(landing, "sample", lambda stream: [])
    with pytest.raises(Fatal, match="data/orders holds no file: put a sample there"):
        testing.land("orders")


def test_a_file_that_cannot_be_read_at_all_is_no_empty_success(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(orders(*[GOOD] * 1_000))[:-20])
    with pytest.raises(BadData, match=r"torn\.csv\.gz"):
        testing.land("orders", tmp_path / "torn.csv.gz")


def test_a_broken_pipeline_is_named_and_not_tested_as_absent(shop: Path) -> None:
    bad = shop / "pipelines" / "bad_pipeline.py"
    bad.write_text("pipeline = 3\n")
    try:
        assert list(testing.broken()) == ["bad_pipeline.py"]
        with pytest.raises(Fatal, match=r"bad_pipeline\.py does not load: define `pipeline = "):
            testing.land("bad")
    finally:
        bad.unlink()


def test_a_warehouse_of_its_own_holds_what_was_loaded(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    before = dict(os.environ)
    with testing.warehouse() as warehouse:
        landed = testing.land("orders")
        warehouse.load(landed)
        warehouse.load(landed)
        found = warehouse.query(
            "select order_date, sum(amount) as amount from raw.orders group by 1 order by 1"
        )
        assert found["order_date"].to_list() == [date(2026, 5, n) for n in (1, 2, 3)]
        assert found["amount"].sum() == landed.good["amount"].sum()
        assert warehouse.query("select count() as n from raw.orders_rejected").item() == 2
        port = warehouse.settings.clickhouse_port
    assert dict(os.environ) == before
    assert (shop / ".headrace" / "testing" / "port").read_text() == str(port)
    assert not (shop / ".headrace" / "lake").exists()
