"""The replaced functions of the queue answer as ministack's own do."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.local.queue_server import for_clients_only, speed_up

RECEIVE = st.tuples(st.just("receive"), st.integers(1, 10), st.sampled_from([30, 5, 0]))
CHANGE = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.just("delete"), st.lists(st.integers(0, 40), min_size=1, max_size=10)),
    st.tuples(st.just("delete one"), st.integers(0, 40)),
    st.tuples(st.just("show"), st.integers(0, 40)),
    st.tuples(st.just("purge")),
    st.tuples(st.just("pass"), st.sampled_from([6, 31, 1])),
)
# Every change is followed by a receive, which is where a difference would show.
STEPS = st.lists(st.tuples(CHANGE, RECEIVE), min_size=5, max_size=25).map(
    lambda pairs: [("send", 9), *(step for pair in pairs for step in pair)]
)


class Clock:
    """Stands in for ``time`` in both modules; hypothesis decides when it passes."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


def fresh_sqs(clock: Clock) -> ModuleType:
    """A private copy of ministack's SQS module, so that one can be changed and the other not."""
    spec = importlib.util.find_spec("ministack.services.sqs")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.time = clock  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def modules(clock: Clock) -> tuple[ModuleType, ModuleType]:
    original, changed = fresh_sqs(clock), fresh_sqs(clock)
    speed_up(changed)
    return original, changed


@pytest.fixture(autouse=True, scope="module")
def same_clock(clock: Clock) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.local.queue_server.time", clock)
        yield


class Driver:
    """Runs steps against one module; names messages by their bodies, as ids and receipts are random."""

    def __init__(self, sqs: ModuleType, clock: Clock) -> None:
        self.sqs, self.clock, self.sent = sqs, clock, 0
        self.receipts: list[str] = []
        self.url: str = self.call("CreateQueue", QueueName="q")["QueueUrl"]
        self.call("PurgeQueue")

    def call(self, action: str, **data: Any) -> dict[str, Any]:
        if action != "CreateQueue":
            data = {"QueueUrl": self.url, **data}
        handler = self.sqs._HANDLERS[action]
        result = handler(data, "")
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    def step(self, kind: str, *args: Any) -> object:
        if kind == "send":
            for _ in range(args[0]):
                self.sent += 1
                self.call("SendMessage", MessageBody=str(self.sent))
        elif kind == "receive":
            found = self.call("ReceiveMessage", MaxNumberOfMessages=args[0], VisibilityTimeout=args[1])
            self.receipts += [message["ReceiptHandle"] for message in found.get("Messages", [])]
            return [message["Body"] for message in found.get("Messages", [])]
        elif kind == "delete":
            handles = [self.receipts[-1 - at] if at < len(self.receipts) else "unknown" for at in args[0]]
            entries = [{"Id": str(at), "ReceiptHandle": handle} for at, handle in enumerate(handles)]
            return copy.deepcopy(self.call("DeleteMessageBatch", Entries=entries))
        elif kind in ("show", "delete one") and self.receipts:
            receipt = self.receipts[args[0] % len(self.receipts)]
            try:
                if kind == "show":
                    self.call("ChangeMessageVisibility", ReceiptHandle=receipt, VisibilityTimeout=0)
                else:
                    self.call("DeleteMessage", ReceiptHandle=receipt)
            except self.sqs._Err as error:
                return error.code
        elif kind == "purge":
            self.call("PurgeQueue")
        return None

    def depth(self) -> dict[str, str]:
        attributes = self.call("GetQueueAttributes", AttributeNames=["All"])["Attributes"]
        return {name: value for name, value in attributes.items() if name.startswith("Approximate")}


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_same_answers_as_the_original(
    modules: tuple[ModuleType, ModuleType], clock: Clock, steps: list[tuple[Any, ...]]
) -> None:
    original, changed = (Driver(module, clock) for module in modules)
    for step in steps:
        if step[0] == "pass":
            clock.now += step[1]
            continue
        assert changed.step(*step) == original.step(*step), step
        assert changed.depth() == original.depth(), step


def test_the_comparison_would_notice_a_lost_message(
    modules: tuple[ModuleType, ModuleType], clock: Clock
) -> None:
    original, changed = (Driver(module, clock) for module in modules)
    for driver in (original, changed):
        driver.step("send", 2)
    changed.step("receive", 1, 30)
    assert changed.depth() != original.depth()


def test_unknown_build_of_ministack_is_noticed() -> None:
    with pytest.raises(AttributeError):
        speed_up(ModuleType("sqs"))


@pytest.mark.parametrize(
    ("path", "headers", "passes"),
    [
        ("/", [], True),
        ("/_ministack/health", [], True),
        ("/", [(b"origin", b"https://example.com")], False),
        ("/_ministack/reset", [], False),
    ],
)
def test_browsers_and_administration_are_refused(path: str, headers: list[Any], passes: bool) -> None:
    reached, sent = [], []

    async def app(*_: Any) -> None:
        reached.append(path)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> None: ...

    async def request() -> None:
        await for_clients_only(app)({"type": "http", "path": path, "headers": headers}, receive, send)

    asyncio.run(request())
    assert bool(reached) is passes
    assert passes or sent[0]["status"] == 403
