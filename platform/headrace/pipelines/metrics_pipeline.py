"""Declare the stream of named measurements."""

from headrace.contracts import METRICS
from headrace.pipelines.base import Files, Kafka, Pipeline, Sqs

pipeline = Pipeline(
    contract=METRICS,
    sources=(Sqs("metrics"), Kafka("metrics"), Files("metrics")),
    models="metrics",
    owner="team:platform",
    description="What systems and sensors measured, one row per measurement",
)
