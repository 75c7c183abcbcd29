"""Producers: everything that puts messages into topics and queues.

``base`` says what a producer is; ``kafka``, ``sqs`` and ``base.MemoryProducer`` are the adapters. ``send``
sends files, ``flights`` and ``malformed`` are the demo's input, ``traffic`` is a live simulation.
"""

from headrace.producers.base import Chunk, MemoryProducer, Producer

__all__ = ["Chunk", "MemoryProducer", "Producer"]
