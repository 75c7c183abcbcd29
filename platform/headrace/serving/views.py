"""Put several answers together: all numbers beside the period before, and the last half hour by the minute."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from headrace.core.errors import BadData, Fatal, HeadraceError
from headrace.metrics import Metric, Question, QuestionError, ask
from headrace.serving.answers import Answered, Answers
from headrace.serving.base import NotBuilt
from headrace.serving.parameters import Asked

LIVE_MINUTES = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """A view of several answers.

    Attributes:
        key: Equal for views that are made of the same answers.
        body: JSON.
        stale: Whether the warehouse is away.
        watermark: When the newest publication in it was.
    """

    key: str
    body: bytes
    stale: bool
    watermark: str | None


async def overview(answers: Answers, asked: Asked) -> Seen:
    """Return every number over a range, beside that of the period before.

    Raises:
        Away: The warehouse is away, and there are no older answers.
        QuestionError: The range is not possible.
    """
    questions = _each(answers, lambda one: asked.question(answers.catalogue, one.name), asked.text)
    found = await _all(answers, questions)
    metrics = []
    for (metric, question, _), one in zip(questions, found, strict=True):
        said = _head(metric) | {
            "from": f"{question.start:%Y-%m-%dT%H:%M:%SZ}",
            "to": f"{question.end:%Y-%m-%dT%H:%M:%SZ}",
        }
        if isinstance(one, Answered):
            rows = msgspec.json.decode(one.entry.body)["rows"] or [{}]
            said |= {"value": rows[0].get("value"), "previous": rows[0].get("previous")}
        else:
            said |= {"value": None, "previous": None, "problem": str(one)}
        metrics.append(said)
    return _seen({"metrics": metrics}, found)


async def live(answers: Answers) -> Seen:
    """Return the numbers of the last half hour by the minute, of metrics that know what has just been published."""
    now = datetime.now(UTC)
    start = now - timedelta(minutes=LIVE_MINUTES - 1)

    def question(one: Metric) -> Question:
        if one.adds_up_over is not None:
            raise QuestionError("metric", one.name, "it is one only for each value of a dimension")
        return ask(answers.catalogue, one.name, start=start, end=now, window="minute", order=["window_start"])

    questions = [one for one in _each(answers, question, "live") if answers.statement(one[1]).live]
    found = await _all(answers, questions)
    metrics = []
    for (metric, _, _), one in zip(questions, found, strict=True):
        rows = msgspec.json.decode(one.entry.body)["rows"] if isinstance(one, Answered) else []
        metrics.append(_head(metric) | {"rows": rows})
    first = f"{start:%Y-%m-%dT%H:%M:00Z}"
    return _seen({"from": first, "minutes": LIVE_MINUTES, "metrics": metrics}, found, first)


Asking = tuple[Metric, Question, str]


def _each(answers: Answers, make: Any, asked: str) -> list[Asking]:
    """Return the questions about all metrics, without those that it cannot be asked of.

    Raises:
        QuestionError: It can be asked of none.
    """
    found: list[Asking] = []
    wrong: QuestionError | None = None
    for metric in answers.catalogue.metrics.values():
        try:
            found.append((metric, make(metric), f"{metric.name} {asked}"))
        except QuestionError as error:
            wrong = wrong or error
    if not found and wrong is not None:
        raise wrong
    return found


async def _all(answers: Answers, questions: Sequence[Asking]) -> list[Answered | HeadraceError]:
    """Answer questions; what is refused, as where a model is not built yet, is an answer, too."""
    found = await asyncio.gather(
        *(answers.answer(question, asked=asked) for _, question, asked in questions), return_exceptions=True
    )
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, Fatal | BadData | NotBuilt):
            raise one
    return [one for one in found if isinstance(one, Answered | HeadraceError)]


def _head(metric: Metric) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "label": metric.label,
        "family": metric.family,
        "unit": metric.unit,
        "format": metric.format,
    }


def _seen(document: dict[str, Any], found: Sequence[Answered | HeadraceError], *more: str) -> Seen:
    entries = [one for one in found if isinstance(one, Answered)]
    key = hashlib.sha256()
    for part in (*more, *(one.entry.key if isinstance(one, Answered) else str(one) for one in found)):
        key.update(f"{part}\n".encode())
    stale = any(one.stale for one in entries)
    watermark = max((one.entry.watermark for one in entries if one.entry.watermark), default=None)
    head = {"stale": stale, "watermark": watermark} if stale else {"watermark": watermark}
    return Seen(key.hexdigest()[:40], msgspec.json.encode(head | document), stale, watermark)
