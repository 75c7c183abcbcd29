"""Dashboards for Grafana as code: numbers from the definitions in ``metrics``, measurements from ``telemetry``.

``boards`` and ``platform`` say what is on them, ``panels`` makes Grafana's panels of it, ``files`` writes what Grafana
provisions itself with, and ``check`` finds what is wrong with it.
"""
