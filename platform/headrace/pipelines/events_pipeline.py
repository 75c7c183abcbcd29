"""Declare the stream of analytics events."""

from headrace.contracts import EVENTS
from headrace.pipelines.base import Files, Kafka, Pipeline, Sqs

pipeline = Pipeline(
    contract=EVENTS,
    sources=(Kafka("analytics_events"), Sqs("analytics_events"), Files("events")),
    models="events",
    owner="team:analytics",
    description="What people, devices and services did, one row per event",
)
