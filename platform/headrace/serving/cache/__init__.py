"""Keep answers below keys that never mean another answer: in memory, in any server of Redis' protocol, or in both."""

from headrace.serving.cache.base import Cache
from headrace.serving.cache.layered import Layered
from headrace.serving.cache.memory import Memory

__all__ = ["Cache", "Layered", "Memory"]
