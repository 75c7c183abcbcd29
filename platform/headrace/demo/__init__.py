"""The demo: real input, real Dagster processes, and a reconciliation of every number at the end.

``run`` is ``headrace demo``; ``up`` is ``headrace up``, which serves the platform with simulated traffic.
"""
