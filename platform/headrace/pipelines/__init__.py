"""Pipelines: one file per stream, discovered by name (``*_pipeline.py``)."""

from headrace.pipelines.base import Kafka, Pipeline, Sqs
from headrace.pipelines.discovery import Discovered, discover

__all__ = ["Discovered", "Kafka", "Pipeline", "Sqs", "discover"]
