"""Say what is wrong with a request as RFC 9457 tells: ``application/problem+json``."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from headrace.core.errors import BadData, HeadraceError, Retriable
from headrace.metrics import QuestionError

log = logging.getLogger(__name__)

TYPE = "application/problem+json"
RETRY_SECONDS = 2


class Problem(Exception):
    """A request that is answered by a problem.

    Attributes:
        status: HTTP status.
        detail: What is wrong, and what to do.
        more: Further members of the answer.
        headers: Further headers.
    """

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.more, self.headers = status, detail, more, headers or {}


def answer(problem: Problem) -> Response:
    """Return the response of a problem."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    headers = {"cache-control": "no-store", **problem.headers}
    return Response(msgspec.json.encode(body), problem.status, headers, TYPE)


def of(error: Exception) -> Problem:
    """Return the problem that an error is for who asked."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, headers=dict(error.headers or {}))
    if isinstance(error, QuestionError):
        found = error.as_dict()
        return Problem(400, found.pop("message"), **found)
    if isinstance(error, BadData):
        return Problem(400, str(error))
    if isinstance(error, Retriable | TimeoutError):
        said = str(error) or "the answer was not ready in time; ask again"
        return Problem(503, said, headers={"retry-after": str(RETRY_SECONDS)})
    if isinstance(error, HeadraceError):
        log.error("%s", error)
        return Problem(500, str(error))
    log.exception("a request failed", exc_info=error)
    return Problem(500, "an error of the server; its log has more")


async def handle(_request: Request, error: Exception) -> Response:
    """Answer a request that ended in an error."""
    return answer(of(error))
