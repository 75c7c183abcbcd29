"""A collector of the usual kind: FastAPI, a Pydantic model, and aiokafka, which waits for all replicas.

It keeps nothing itself: what the broker forgets is gone, and a repeat lands twice. Served by uvicorn with httptools and
uvloop, the quickest of its ways, without a log of accesses.

``python -m headrace.bench.peers.with_fastapi SERVERS TOPIC --port PORT`` runs one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, HTTPException, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: Key that this one knows.
KEY = "hr_fastapi"
_SHORT = Annotated[str, Field(min_length=1, max_length=128)]


class Event(BaseModel):
    """The contract of ``events`` as a model."""

    model_config = ConfigDict(extra="forbid")

    event_id: _SHORT
    event_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]
    occurred_at: AwareDatetime
    received_at: AwareDatetime | None = None
    session_id: _SHORT
    user_id: _SHORT | None = None
    device_id: _SHORT | None = None
    channel: Literal["web", "mobile", "chat", "server", "iot", "other"]
    page_url: Annotated[str, Field(max_length=2_048)] | None = None
    duration_ms: Annotated[float, Field(ge=0)] | None = None
    properties: dict[str, Any] | None = None
    schema_version: Literal[1] = 1


def collector(servers: str, topic: str) -> FastAPI:
    """Return the application."""

    @asynccontextmanager
    async def connected(app: FastAPI) -> AsyncIterator[None]:
        producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=3)
        await producer.start()
        app.state.producer = producer
        yield
        await producer.stop()

    app = FastAPI(lifespan=connected)

    async def track(events: Event | list[Event], request: Request) -> dict[str, int]:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise HTTPException(401)
        sent = events if isinstance(events, list) else [events]
        producer = app.state.producer
        waiting = [
            await producer.send(topic, event.model_dump_json(exclude_none=True).encode()) for event in sent
        ]
        await asyncio.gather(*waiting)
        return {"accepted": len(sent)}

    async def ready() -> dict[str, str]:
        return {"status": "ok"}

    app.post("/v1/analytics/track", status_code=202)(track)
    app.get("/readyz")(ready)
    return app


if __name__ == "__main__":
    uvicorn.run(
        collector(sys.argv[1], sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[4]),
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
    )
