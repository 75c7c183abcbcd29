"""Define the contract of each stream's records, and split micro-batches into good and rejected rows.

One Pandera model per stream and version is the only schema. The wire decoder, Arrow, Delta, ClickHouse DDL and
JSON Schema are derived from it.
"""

from headrace.contracts.base import Column, Contract, Time, field, map_of
from headrace.contracts.check import Limits, check_batch, violations
from headrace.contracts.events import EVENTS
from headrace.contracts.growth.declared import Was
from headrace.contracts.metrics import METRICS

__all__ = [
    "EVENTS",
    "METRICS",
    "Column",
    "Contract",
    "Limits",
    "Time",
    "Was",
    "check_batch",
    "field",
    "map_of",
    "violations",
]
