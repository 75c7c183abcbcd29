"""The dbt project as data: its manifest, the lineage of its columns, and the versions of it that parsed.

Nothing here imports Dagster. Models run from the last version that parsed (ADR 29).
"""
