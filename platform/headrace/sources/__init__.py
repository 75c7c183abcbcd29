"""Sources: where messages wait. Each states its delivery guarantee and its unit of parallelism."""

from headrace.sources.base import Source

__all__ = ["Source"]
