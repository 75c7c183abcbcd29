"""The whole platform on one machine: broker, queue, ClickHouse endpoint and Dagster as supervised processes.

All of them listen on loopback alone, and none outlives its supervisor. ``clickhouse/`` is the embedded server.
"""
