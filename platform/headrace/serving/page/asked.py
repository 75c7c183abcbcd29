"""The numbers of a running server: questions of ``metrics``, answered through its cache."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headrace.core.errors import BadData
from headrace.metrics.catalogue import Catalogue
from headrace.metrics.errors import QuestionError
from headrace.metrics.question import ask
from headrace.metrics.windows import WINDOWS
from headrace.serving.page.address import Span
from headrace.serving.page.numbers import FORMS, Answer, moment

if TYPE_CHECKING:
    from headrace.serving.answers import Answers

#: Questions of the page at the same time; others wait within the time of their panel, and leave turns to programs.
_AT_ONCE = 5


def fitting(catalogue: Catalogue, metric: str, wanted: str) -> str:
    """Return a window that a metric has: the wanted one, or else the next that is wider."""
    offered = catalogue.windows_of(catalogue.metric(metric))
    names = list(WINDOWS)
    wider = [one for one in offered if names.index(one) >= names.index(wanted)]
    return wider[0] if wider else offered[-1]


class Asked:
    """Answers questions through the cache of a server."""

    def __init__(self, answers: Answers) -> None:
        """Answer with the definitions that the cache has."""
        self._answers = answers
        self._turns = asyncio.Semaphore(_AT_ONCE)

    @property
    def _catalogue(self) -> Catalogue:
        return self._answers.catalogue

    def knows(self, metric: str, /) -> bool:
        """Tell whether there is such a metric."""
        return metric in self._catalogue.metrics

    def dimensions(self, metric: str, /) -> tuple[str, ...]:
        """Return the names of the dimensions that a metric has."""
        return tuple(self._catalogue.dimensions_of(self._catalogue.metric(metric)))

    def window(self, metric: str, wanted: str, /) -> str:
        """Return a window that a metric has: the wanted one, or else the next that is wider."""
        return fitting(self._catalogue, metric, wanted)

    def described(self, metric: str, /) -> tuple[str, str, str]:
        """Return label, description and form of a metric."""
        found = self._catalogue.metric(metric)
        return found.label, found.description, FORMS.get(found.format, "number")

    async def ask(
        self,
        metric: str,
        span: Span,
        /,
        *,
        window: str = "all",
        dimensions: Sequence[str] = (),
        filters: Mapping[str, str] | None = None,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> Answer:
        """Answer a question."""
        known = self.dimensions(metric) if self.knows(metric) else ()
        given = filters or {}
        try:
            question = ask(
                self._catalogue,
                metric,
                start=span.start,
                end=span.end,
                window=window,
                dimensions=dimensions,
                filters={name: value for name, value in given.items() if name in known},
                order=order,
                limit=limit,
            )
        except QuestionError as error:
            raise BadData(str(error)) from error
        async with self._turns:
            rows, answered = await self._answers.rows(question)
        label, _, form = self.described(metric)
        ignored = tuple(name for name in given if name not in known)
        fresh = moment(answered.entry.watermark) if answered.entry.watermark else None
        return Answer(rows, label, form, window, fresh, ignored, answered.age if answered.stale else None)
