"""Dashboards and rules for the tools that people have: Metabase, Grafana, Prometheus.

Numbers come from the definitions in ``metrics``, and measurements of the platform from ``telemetry``.
"""
