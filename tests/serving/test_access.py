"""Who may read: keys beyond loopback, sessions by the form, rates, origins, names of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.collector.keys import Keys

from .conftest import Built, Served, serving

CATALOGUE = "/v1/metrics"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("locked")


@pytest.fixture(scope="module")
def keys(home: Path) -> dict[str, str]:
    made = Keys(home / "collector" / "keys.json")
    return {
        "read": made.create("reader", rights=("read",)),
        "write": made.create("writer"),
        "slow": made.create("slow", rights=("read",), rate=0.01),
    }


@pytest.fixture(scope="module")
def locked(built: Built, home: Path, keys: dict[str, str]) -> Iterator[Served]:
    more = {"serve_origins": ("https://shop.example",)}
    with serving(built.settings(home, **more), host="0.0.0.0") as found:
        yield found


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_beyond_loopback_a_read_key_is_asked_for(locked: Served, keys: dict[str, str]) -> None:
    for path in (CATALOGUE, "/openapi.json", "/v1/stream", "/"):
        refused = locked.get(path)
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"] == "Bearer"
    assert locked.get("/healthz").status_code == 200
    assert locked.get(CATALOGUE, headers=bearer(keys["read"])).status_code == 200
    assert locked.get(CATALOGUE, headers={"x-api-key": keys["read"]}).status_code == 200
    assert locked.get(CATALOGUE, headers=bearer("hr_wrong")).status_code == 401
    assert locked.get(CATALOGUE, headers=bearer(keys["write"])).status_code == 403


def test_an_answer_that_is_ready_needs_a_key_too(built: Built, locked: Served, keys: dict[str, str]) -> None:
    path = f"{CATALOGUE}/events?from=2026-01-01&to=2026-01-02"
    for _ in range(2):
        assert locked.get(path, headers=bearer(keys["read"])).status_code == 200
    assert locked.get(path).status_code == 401


def test_a_person_enters_by_the_form(locked: Served, keys: dict[str, str]) -> None:
    page = locked.get("/docs?x=1", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=%2Fdocs%3Fx%3D1")
    form = locked.get(page.headers["location"])
    assert form.status_code == 200 and 'value="/docs?x=1"' in form.text
    assert locked.client.post("/login", data={"key": "hr_wrong"}).status_code == 401
    assert locked.client.post("/login", data={"key": keys["write"]}).status_code == 401
    entered = locked.client.post("/login", data={"key": keys["read"], "next": "//evil.example"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    value = cookie.partition(";")[0]
    locked.client.cookies.clear()
    assert locked.get(CATALOGUE, headers={"cookie": value}).status_code == 200
    assert (
        locked.get(CATALOGUE, headers={"cookie": value[:-1] + ("0" if value[-1] != "0" else "1")}).status_code
        == 401
    )


def test_a_rate_is_per_key(locked: Served, keys: dict[str, str]) -> None:
    statuses = [locked.get(CATALOGUE, headers=bearer(keys["slow"])).status_code for _ in range(3)]
    assert 429 in statuses
    assert locked.get(CATALOGUE, headers=bearer(keys["read"])).status_code == 200


def test_pages_of_origins_that_are_set_may_read(locked: Served, keys: dict[str, str]) -> None:
    own = bearer(keys["read"])
    there = locked.get(CATALOGUE, headers={**own, "origin": "https://shop.example"})
    assert there.headers["access-control-allow-origin"] == "https://shop.example"
    assert "cross-origin-resource-policy" not in there.headers
    stranger = locked.get(CATALOGUE, headers={**own, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    asked = {"origin": "https://shop.example", "access-control-request-method": "GET"}
    assert locked.client.options(CATALOGUE, headers=asked).status_code == 204


def test_every_answer_keeps_a_browser_from_what_is_not_meant(locked: Served, keys: dict[str, str]) -> None:
    for path in (CATALOGUE, "/docs", "/nothing", "/login", f"{CATALOGUE}/nothing"):
        found = locked.get(path, headers=bearer(keys["read"]))
        assert "default-src 'self'" in found.headers["content-security-policy"]
        assert found.headers["x-content-type-options"] == "nosniff"


def test_without_keys_the_server_goes_by_its_own_names(served: Served) -> None:
    assert served.get(CATALOGUE).status_code == 200
    assert served.get(CATALOGUE, headers={"host": "localhost:1234"}).status_code == 200
    assert served.get(CATALOGUE, headers={"host": "rebound.example"}).status_code == 421
