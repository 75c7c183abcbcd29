"""The embedded ClickHouse: the engine as a library behind ClickHouse's own HTTP protocol.

One process owns one data directory and answers on one port, so every ClickHouse client, dbt included, works with it
unchanged. Start it with ``python -m headrace.local.clickhouse``.
"""
