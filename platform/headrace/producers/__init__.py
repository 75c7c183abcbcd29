"""Send messages to topics and queues, and count those that the broker acknowledged.

``base`` defines a producer; ``kafka``, ``sqs`` and ``base.MemoryProducer`` implement it. ``send`` sends files,
``flights`` and ``malformed`` make the demo's input, and ``traffic`` simulates live traffic.
"""

from headrace.producers.base import Chunk, MemoryProducer, Producer

__all__ = ["Chunk", "MemoryProducer", "Producer"]
