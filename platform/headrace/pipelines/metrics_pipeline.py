"""Named measurements."""

from headrace.contracts import METRICS
from headrace.pipelines.base import Kafka, Pipeline, Sqs

pipeline = Pipeline(
    contract=METRICS,
    sources=(Sqs("metrics"), Kafka("metrics")),
    models="metrics",
    owner="team:platform",
    description="What systems and sensors measured, one row per measurement",
)
