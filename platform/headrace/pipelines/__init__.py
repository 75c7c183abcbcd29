"""Pipelines: one file per stream, discovered by name (``*_pipeline.py``)."""

from headrace.pipelines.base import Files, Kafka, Pipeline, Spec, Sqs
from headrace.pipelines.discovery import Discovered, discover

__all__ = ["Discovered", "Files", "Kafka", "Pipeline", "Spec", "Sqs", "discover"]
