"""Hold raw tables in ClickHouse and record which lake versions they contain.

Migrations create and change the tables. ``memory`` has a stand-in for tests.
"""

from headrace.warehouse.base import Builds, Publication, StaleDay, Warehouse

__all__ = ["Builds", "Publication", "StaleDay", "Warehouse"]
