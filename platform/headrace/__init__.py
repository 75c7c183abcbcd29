"""Headrace: micro-batches from Kafka and SQS into Delta Lake and ClickHouse, every message exactly once."""
