"""Benchmarks: the cost and speed of Headrace on this machine, behind ``headrace bench``.

Every measured run is reconciled. ``report`` writes ``docs/performance.md`` from the figures.
"""
