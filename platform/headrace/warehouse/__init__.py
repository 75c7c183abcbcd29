"""The warehouse: raw tables that lake versions are published to, and the record of what was."""

from headrace.warehouse.base import Publication, StaleDay, Warehouse

__all__ = ["Publication", "StaleDay", "Warehouse"]
