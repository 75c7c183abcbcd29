"""Test the streams and models of a project: on memory adapters, and on the embedded ClickHouse engine.

``land`` passes files through a stream as the platform does, into a lake in memory. ``warehouse`` runs a ClickHouse of
the tests' own, publishes what landed, and builds the project's dbt models; it needs the extra ``local``::

    def test_a_bad_order_is_refused() -> None:
        assert testing.land("orders").reasons == {"country: isin(['DE', 'FR'])": 1}


    def test_the_mart_counts_each_order_once(warehouse: testing.Warehouse) -> None:
        warehouse.load(testing.land("orders"))
        warehouse.build("orders", date(2026, 5, 1))
        assert warehouse.query("select sum(orders) from analytics.orders_daily").item() == 8
"""

from headrace.testing.landing import Landed, broken, land, sample, streams
from headrace.testing.warehouse import Warehouse, warehouse

__all__ = ["Landed", "Warehouse", "broken", "land", "sample", "streams", "warehouse"]
