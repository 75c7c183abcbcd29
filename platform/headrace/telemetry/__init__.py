"""Measurements of a whole installation for Prometheus.

``families`` declares every measurement. ``parts`` and ``platform`` take them, with the functions that ``headrace
status`` uses, so that both say the same. ``background`` takes them at intervals in threads of its own, and ``exporter``
answers a scrape with the last ones, without waiting for any service.
"""

from headrace.telemetry.exporter import Exporter, exporter

__all__ = ["Exporter", "exporter"]
