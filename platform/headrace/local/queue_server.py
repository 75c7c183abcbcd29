"""Serve ministack's SQS, and nothing else, on one loopback port: ``python -m headrace.local.queue_server``.

ministack's own launcher opens further ports (SFTP, MQTT), stops Docker containers that carry its label and runs
scripts from system folders, all in its ASGI lifespan. This server leaves the lifespan out; SQS does not need it.

It replaces two of ministack's functions. Both walk the whole queue for every message received or deleted, which made a
queue of 20,000 messages ten times slower than an empty one. Answers keep their content:
``tests/local/test_queue.py`` compares both with the originals.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import ModuleType
from typing import Any

from headrace.local.processes import LOOPBACK

_HEALTH = "/_ministack/health"
_SCAN = "_headrace_scan"

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Send], Awaitable[None]]


class _Scan:
    """Position in a queue: ``messages[:index]`` is invisible until the clock passes ``until``."""

    __slots__ = ("index", "messages", "until")

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages, self.index, self.until = messages, 0, float("inf")


def speed_up(sqs: ModuleType) -> None:
    """Replace the functions of ministack's SQS module that walk the whole queue.

    Raises:
        AttributeError, KeyError: This version of ministack is built differently.
    """
    collect, handlers = sqs._collect_msgs, sqs._HANDLERS
    purge, hide, hide_batch = (
        handlers[name] for name in ("PurgeQueue", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch")
    )
    handlers["DeleteMessageBatch"]  # raises KeyError if there is none to replace

    def collect_messages(queue: dict[str, Any], limit: int, visibility: int) -> list[dict[str, Any]]:
        if queue["is_fifo"]:
            found: list[dict[str, Any]] = collect(queue, limit, visibility)
            return found
        now, messages, scan = time.time(), queue["messages"], queue.get(_SCAN)
        if scan is None or scan.messages is not messages or scan.index > len(messages) or now >= scan.until:
            scan = queue[_SCAN] = _Scan(messages)
        taken: list[dict[str, Any]] = []
        while scan.index < len(messages) and len(taken) < limit:
            message = messages[scan.index]
            scan.index += 1
            sqs._ensure_msg_fields(message)
            if message["visible_at"] <= now:
                message["receipt_handle"] = sqs.new_uuid()
                message["visible_at"] = now + visibility
                message["receive_count"] += 1
                if message["first_receive_at"] is None:
                    message["first_receive_at"] = now
                taken.append(message)
            scan.until = min(scan.until, message["visible_at"])
        return taken

    def delete_message_batch(data: dict[str, Any], url: str) -> dict[str, Any]:
        queue = sqs._get_q(data.get("QueueUrl", url))
        entries, messages = data.get("Entries", []), queue["messages"]
        wanted = {entry["ReceiptHandle"] for entry in entries if entry.get("ReceiptHandle")}
        found: set[str] = set()
        positions: list[int] = []
        for position, message in enumerate(
            messages
        ):  # messages received first are deleted first: search from the front
            if len(found) == len(wanted):
                break
            if message.get("receipt_handle") in wanted:
                found.add(message["receipt_handle"])
                positions.append(position)
        if positions:
            gone, end = set(positions), positions[-1] + 1
            messages[:end] = [message for at, message in enumerate(messages[:end]) if at not in gone]
            if scan := queue.get(_SCAN):
                scan.index -= sum(position < scan.index for position in positions)
        done, failed = [], []
        for entry in entries:
            if entry.get("ReceiptHandle", "") in found:
                found.discard(entry["ReceiptHandle"])  # a handle given twice fails the second time
                done.append({"Id": entry.get("Id", "")})
            else:
                failed.append(
                    {
                        "Id": entry.get("Id", ""),
                        "Code": "ReceiptHandleIsInvalid",
                        "Message": "The input receipt handle is invalid.",
                        "SenderFault": True,
                    }
                )
        return {"Successful": done, "Failed": failed}

    def forgetting(handler: Callable[[dict[str, Any], str], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def handle(data: dict[str, Any], url: str) -> dict[str, Any]:
            sqs._get_q(data.get("QueueUrl", url)).pop(_SCAN, None)
            return handler(data, url)

        return handle

    sqs.__dict__["_collect_msgs"] = collect_messages
    handlers["DeleteMessageBatch"] = delete_message_batch
    handlers["PurgeQueue"] = forgetting(purge)
    handlers["ChangeMessageVisibility"] = forgetting(hide)
    handlers["ChangeMessageVisibilityBatch"] = forgetting(hide_batch)


def for_clients_only(app: App) -> App:
    """Refuse browsers and ministack's administration.

    The queue has no passwords, and any web page can make a browser post to a loopback port. So requests with an Origin
    are refused. Without the rest of ``/_ministack``, nobody wipes the queues by accident.
    """

    async def guarded(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        if scope["type"] == "http":
            refused = scope["path"].startswith("/_ministack") and scope["path"] != _HEALTH
            if not refused and not any(name == b"origin" for name, _ in scope["headers"]):
                await app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"only for SQS clients\n"})

    return guarded


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="ministack's SQS on loopback")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    import ministack.app  # after the arguments: it reads the environment on import
    import uvicorn
    from ministack.services import sqs

    try:
        speed_up(sqs)
    except (AttributeError, KeyError) as error:
        print(f"this version of ministack keeps its own, slower receive: {error!r}", flush=True)
    uvicorn.run(
        for_clients_only(ministack.app.app),
        host=LOOPBACK,
        port=port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,  # longer than botocore's pool keeps a connection idle
    )


if __name__ == "__main__":
    main()
