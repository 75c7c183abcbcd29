"""Read Kafka topics.

``source`` polls, ``fetch`` takes record batches out of kafka-python, ``buffer`` shares them out, and ``decode``
turns them into columns.
"""
