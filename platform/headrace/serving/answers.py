"""Answer questions: from the cache, under a key that names the very rows, or from the warehouse, once for all."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import msgspec

from headrace.core.errors import Retriable
from headrace.metrics import Catalogue, Question, Statement, compile_question
from headrace.serving.base import Asking
from headrace.serving.cache import Cache
from headrace.serving.held import Held, MadeOf
from headrace.serving.versions import Versions

log = logging.getLogger(__name__)

Format = Literal["json", "csv", "arrow"]
TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
FORMATS: dict[Format, str] = {"json": "JSONEachRow", "csv": "CSVWithNames", "arrow": "ArrowStream"}
#: Seconds that another process may take for the same answer before it is made here, too.
_OTHERS_SECONDS, _LOOK_SECONDS = 3.0, 0.02
#: Questions whose newest answer is remembered for when the warehouse is away.
_REMEMBERED = 5_000


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is kept.

    Attributes:
        key: Its key.
        made_at: When it was made, s since 1970.
        kind: Content type.
        packed: Its body, by gzip.
        watermark: When the newest publication in it was; None if nothing is known.
    """

    key: str
    made_at: float
    kind: str
    packed: bytes
    watermark: str | None = None

    @property
    def body(self) -> bytes:
        """The body."""
        return gzip.decompress(self.packed)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer.

    Attributes:
        entry: The answer as it is kept.
        stale: Whether the warehouse is away, so that there may be a newer one.
        digest: Of what the warehouse held when it was asked for.
    """

    entry: Entry
    stale: bool = False
    digest: str = ""

    @property
    def age(self) -> int:
        """For how long it has been kept, s."""
        return max(0, round(time.time() - self.entry.made_at))


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large answers may be.

    Attributes:
        seconds: Longest time for an answer, waiting included.
        keep_seconds: For how long one is kept.
        keep_bytes: Longest body that is kept, packed.
        stale_seconds: Oldest one that is given while the warehouse is away.
    """

    seconds: float = 15.0
    keep_seconds: float = 86_400.0
    keep_bytes: int = 2 << 20
    stale_seconds: float = 86_400.0


class Answers:
    """Answers questions. For one event loop.

    Args:
        catalogue: The definitions.
        warehouse: Is asked.
        versions: Knows what it holds.
        cache: Keeps answers.
        limits: How long and how large they may be.
    """

    def __init__(
        self, catalogue: Catalogue, warehouse: Asking, versions: Versions, cache: Cache, limits: Limits
    ) -> None:
        self.versions = versions
        self._warehouse, self._cache, self._limits = warehouse, cache, limits
        self._under_way: dict[str, asyncio.Task[Entry]] = {}
        self._newest: OrderedDict[str, str] = OrderedDict()
        self.made = 0
        self.use(catalogue)

    def use(self, catalogue: Catalogue) -> None:
        """Answer by these definitions from now on; a key has the SQL in it, so what was kept stays right."""
        self.catalogue = catalogue
        self._days = {catalogue.schemas.relation(model): model.day for _, model in catalogue.models()}
        _statement.cache_clear()

    def statement(self, question: Question) -> Statement:
        """Return the SQL of a question as of today."""
        return _statement(self, question, datetime.now(UTC).date().isoformat())

    def made_of(self, statement: Statement, question: Question, held: Held) -> MadeOf:
        """Return what an answer is made of."""
        relations = {name: self._days.get(name, "") for name in statement.relations}
        return held.made_of(relations, statement.streams, *question.days, datetime.now(UTC).date())

    def key(self, statement: Statement, made_of: MadeOf, held: Held, format: Format) -> str:
        """Return the key of an answer: the question with its exact bounds, and what it is made of."""
        values = (f"{name}={value!r}" for name, value in sorted(statement.parameters.items()))
        return held.key((format, statement.sql, *values), made_of)

    async def key_of(self, question: Question, format: Format = "json") -> str:
        """Return the key of a question's answer now.

        Raises:
            Away: The warehouse does not say what it holds.
        """
        held = await self.versions.current()
        statement = self.statement(question)
        return self.key(statement, self.made_of(statement, question, held), held, format)

    async def answer(self, question: Question, format: Format = "json", asked: str = "") -> Answered:
        """Answer a question.

        Args:
            question: The question.
            format: Form of the body.
            asked: What was asked, before times like ``now`` had their values: an older answer to it may be given while
                the warehouse is away.

        Raises:
            Away: The warehouse is away, and there is no answer that is young enough.
            TooMuch: It takes too long, or is too large.
        """
        asked = f"{format} {asked or question.key}"
        try:
            async with asyncio.timeout(self._limits.seconds):
                held = await self.versions.current()
                entry = await self._answer(held, question, format)
        except (Retriable, TimeoutError) as error:
            return await self._older(asked, error)
        self._remember(asked, entry.key)
        return Answered(entry, digest=held.digest)

    async def rows(self, question: Question) -> tuple[list[dict[str, Any]], Answered]:
        """Return the rows of an answer by column, and the answer."""
        found = await self.answer(question)
        return msgspec.json.decode(found.entry.body)["rows"], found

    async def _answer(self, held: Held, question: Question, format: Format) -> Entry:
        statement = self.statement(question)
        made_of = self.made_of(statement, question, held)
        key = self.key(statement, made_of, held, format)
        if (entry := await self._kept(key)) is not None:
            return entry
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._make(key, question, statement, made_of, format))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)  # who gives up leaves the others their answer

    def _ended(self, key: str, task: asyncio.Task[Entry]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waits is told

    async def _kept(self, key: str) -> Entry | None:
        found = await self._cache.get(key)
        if found is None:
            return None
        try:
            entry = msgspec.msgpack.decode(found, type=Entry)
        except msgspec.MsgspecError:
            return None
        return entry if entry.key == key else None

    async def _make(
        self, key: str, question: Question, statement: Statement, made_of: MadeOf, format: Format
    ) -> Entry:
        claimed = await self._cache.claim(key, _OTHERS_SECONDS)
        if not claimed and (entry := await self._of_another(key)) is not None:
            return entry
        try:
            self.made += 1
            found = await self._warehouse.raw(statement.sql, given(statement), FORMATS[format])
            body = in_json(question, statement, made_of, found) if format == "json" else found
            entry = Entry(key, time.time(), TYPES[format], gzip.compress(body, 4, mtime=0), made_of.watermark)
            if len(entry.packed) <= self._limits.keep_bytes:
                await self._cache.put(key, msgspec.msgpack.encode(entry), self._limits.keep_seconds)
            return entry
        finally:
            if claimed:
                await self._cache.release(key)

    async def _of_another(self, key: str) -> Entry | None:
        """Wait for the answer that another process makes; None if it takes too long."""
        until = time.monotonic() + _OTHERS_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            if (entry := await self._kept(key)) is not None:
                return entry
        return None

    def _remember(self, asked: str, key: str) -> None:
        self._newest[asked] = key
        self._newest.move_to_end(asked)
        if len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)

    async def _older(self, asked: str, error: Exception) -> Answered:
        key = self._newest.get(asked)
        entry = await self._kept(key) if key else None
        if entry is None or time.time() - entry.made_at > self._limits.stale_seconds:
            raise error
        return Answered(entry, stale=True)


@lru_cache(2_000)
def _statement(answers: Answers, question: Question, _today: str) -> Statement:
    return compile_question(question, answers.catalogue)


def given(statement: Statement) -> dict[str, str]:
    """Return the values of a statement as texts."""
    from headrace.metrics.compile import plain

    return {name.removeprefix("param_"): text for name, text in plain(statement.parameters).items()}


def asked_of(question: Question) -> dict[str, Any]:
    """Return a question in its normal form, for an answer."""
    return {
        "from": question.start.isoformat().replace("+00:00", "Z"),
        "to": question.end.isoformat().replace("+00:00", "Z"),
        "window": question.window,
        "dimensions": question.dimensions,
        "filters": dict(question.filters),
        "order": question.order,
        "limit": question.limit,
        "compare": question.compare,
    }


def in_json(question: Question, statement: Statement, made_of: MadeOf, lines: bytes) -> bytes:
    """Return the body of an answer in JSON, from its rows as lines of JSON."""
    head = {
        "metric": question.metric,
        "question": asked_of(question),
        "columns": [
            {
                "name": c.name,
                "role": c.role,
                "kind": c.kind,
                "label": c.label,
                "unit": c.unit,
                "format": c.format,
            }
            for c in statement.columns
        ],
        "watermark": made_of.watermark,
        "fresh": not made_of.stale,
        "made_of": made_of.as_dict(),
    }
    rows = b",\n".join(lines.splitlines())
    return msgspec.json.encode(head)[:-1] + b',"rows":[' + rows + b"]}\n"


def marked(body: bytes, age: int) -> bytes:
    """Return the body of an answer in JSON with the remark that it may be outdated."""
    return b'{"stale":true,"age_seconds":%d,' % age + body[1:]
