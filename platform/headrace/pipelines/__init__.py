"""Pipelines: one file per stream, discovered by name (``*_pipeline.py``)."""

from headrace.pipelines.base import Cadence, Files, Kafka, Pipeline, Spec, Sqs, Thresholds
from headrace.pipelines.discovery import Discovered, discover

__all__ = [
    "Cadence",
    "Discovered",
    "Files",
    "Kafka",
    "Pipeline",
    "Spec",
    "Sqs",
    "Thresholds",
    "discover",
]
