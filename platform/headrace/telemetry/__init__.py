"""Measurements of a whole installation for Prometheus.

``families`` declares every measurement. ``parts`` and ``platform`` take them, with the functions that ``headrace
status`` uses, so that both say the same. ``background`` takes them at intervals in threads of its own, and ``exporter``
puts the last ones together, without waiting for any service. ``beside`` has all that done in a process of its own.
"""
