"""Read messages from topics, queues and folders.

Each source states its delivery guarantee and its unit of parallelism. ``memory`` has twins of a topic and a
queue for tests, and ``guarded`` adds retries and a circuit breaker.
"""

from headrace.sources.base import Source

__all__ = ["Source"]
