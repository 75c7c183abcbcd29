"""What a registry answers, or does not, becomes a schema, nothing, or an error of the right kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.clients.registry import Access, SchemaRegistry, verified
from headrace.core.errors import BadData, Fatal, Retriable
from headrace.core.schemas import Schema
from headrace.local.processes import pick_port
from registry_double import RegistryDouble, basic, registry_double

SECRET = "s3cret"


@pytest.fixture
def double() -> Iterator[RegistryDouble]:
    with registry_double() as one:
        yield one


def test_a_schema_comes_with_all_that_it_refers_to_in_the_order_of_need(double: RegistryDouble) -> None:
    double.add("deep", "PROTOBUF", "deep")
    double.add("left", "PROTOBUF", "a/left", [("deep.proto", "deep", 1)])
    double.add("right", "PROTOBUF", "right", [("deep.proto", "deep", 1)])
    top = double.add("top", "PROTOBUF", "top", [("left.proto", "a/left", 1), ("right.proto", "right", 1)])
    registry = SchemaRegistry(Access(double.url))
    assert registry.schema(top) == Schema(
        "PROTOBUF", "top", (("deep.proto", "deep"), ("left.proto", "left"), ("right.proto", "right"))
    )
    assert registry.schema(99) is None
    registry.close()


def test_one_that_refers_to_nothing_or_to_itself_is_no_schema(double: RegistryDouble) -> None:
    lost = double.add("lost", subject="lost", references=[("n", "nowhere", 1)])
    double.add("circle", subject="circle", references=[("self", "circle", 1)])
    odd = double.add("x", "THRIFT", "odd")
    registry = SchemaRegistry(Access(double.url))
    with pytest.raises(BadData, match="'n', version 1 of 'nowhere', which is not there"):
        registry.schema(lost)
    with pytest.raises(BadData, match="'self', which refers to itself"):
        registry.schema(2)
    with pytest.raises(BadData, match="its language is THRIFT; there are AVRO, JSON, PROTOBUF"):
        registry.schema(odd)


def test_a_huge_schema_is_refused(double: RegistryDouble) -> None:
    huge = double.add('"' + "x" * (5 << 20) + '"')
    with pytest.raises(BadData, match="larger than 4,194,304 bytes"):
        SchemaRegistry(Access(double.url)).schema(huge)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_an_error_of_its_own_is_worth_another_try(double: RegistryDouble, status: int) -> None:
    double.status = status
    calls = []

    def guard(call):  # type: ignore[no-untyped-def]
        calls.append(call)
        return call()

    with pytest.raises(Retriable, match=f"on {double.url} answers {status}: as the test says"):
        SchemaRegistry(Access(double.url), guard).schema(1)
    assert len(calls) == len(double.asked) == 1, "the guard alone tries again"


def test_one_that_is_away_is_worth_another_try() -> None:
    url = f"http://127.0.0.1:{pick_port(0, avoid={0})}"
    with pytest.raises(Retriable, match=f"on {url} does not answer"):
        SchemaRegistry(Access(url)).schema(1)


def test_what_is_no_registry_is_named(double: RegistryDouble) -> None:
    double.status, double.body = 404, b"<html>nothing here</html>"
    with pytest.raises(Fatal, match="is HEADRACE_SCHEMA_REGISTRY_URL the root of a schema registry"):
        SchemaRegistry(Access(double.url)).schema(1)
    double.status = 200
    with pytest.raises(Fatal, match="does not answer as a schema registry does"):
        SchemaRegistry(Access(double.url)).schema(1)


@pytest.mark.parametrize(
    ("access", "header"),
    [
        ({"user": "u", "password": SECRET}, basic("u", SECRET)),
        ({"token": SECRET}, f"Bearer {SECRET}"),
    ],
)
def test_credentials_are_sent_and_shown_to_nobody(
    double: RegistryDouble, access: dict[str, str], header: str
) -> None:
    id = double.add('"string"')
    double.authorization = header
    one = Access(double.url, **access)
    assert SchemaRegistry(one).schema(id) is not None
    assert SECRET not in repr(one)
    double.authorization = "Basic other"
    with pytest.raises(Fatal, match=r"answers 401.*check HEADRACE_SCHEMA_REGISTRY_USER") as refused:
        SchemaRegistry(one).schema(id + 1)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access("registry:8081"), "is no URL that begins with http"),
        (Access(f"https://u:{SECRET}@registry"), "holds credentials: move them to"),
        (Access("http://r", user="u", token=SECRET), "are both set"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_their_secrets(access: Access, said: str) -> None:
    with pytest.raises(Fatal, match=said) as refused:
        verified(access)
    assert SECRET not in str(refused.value)


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    access = Access("https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(Fatal, match=r"HEADRACE_SCHEMA_REGISTRY_CA_FILE=.*none\.pem cannot be read"):
        SchemaRegistry(access).schema(1)
