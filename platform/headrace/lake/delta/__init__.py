"""Implement the lake on Delta Lake (delta-rs).

``table`` is the adapter; ``snapshot`` is one version of a table, through which rows land. ``storage`` holds
files and log below both, and ``durable`` syncs them on a local disk.
"""

from headrace.lake.delta.table import DeltaLakeTable

__all__ = ["DeltaLakeTable"]
