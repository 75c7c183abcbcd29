"""Declare the streams: one file ``*_pipeline.py`` each, discovered by name here and in ``HEADRACE_PIPELINES``."""

from headrace.pipelines.base import Cadence, Files, Kafka, Pipeline, Spec, Sqs, Thresholds
from headrace.pipelines.discovery import Discovered, discover, discover_for

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
    "discover_for",
]
