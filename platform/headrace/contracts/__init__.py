"""Contracts: what a record of each stream looks like, and what becomes of one that does not.

One Pandera model per stream and version is the one schema; the wire decoder, Arrow, Delta, ClickHouse DDL
and JSON Schema are derived from it.
"""

from headrace.contracts.base import Column, Contract, Time, field
from headrace.contracts.check import Limits, check, violations
from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS

__all__ = ["EVENTS", "METRICS", "Column", "Contract", "Limits", "Time", "check", "field", "violations"]
