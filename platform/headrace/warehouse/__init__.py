"""The warehouse: raw tables that lake versions are published to, and the record of what was."""

from headrace.warehouse.base import Publication, Touched, Warehouse

__all__ = ["Publication", "Touched", "Warehouse"]
