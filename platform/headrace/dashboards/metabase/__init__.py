"""Describe in Metabase what Headrace knows: connection, tables, questions and dashboards, again and again the same.

``headrace metabase apply`` compares what is wanted with what is there and writes the difference::

    access = Access(url, key)
    changes = reconcile(Client(access), wanted(settings), write=True)

Metabase's own serialization is a paid feature, so all goes through its REST API. What Headrace made carries a mark in
its description: which thing it is, and a digest of its content. So a second run writes nothing, an edit by hand shows
and is left alone, and an interrupted run is taken up where it ended.
"""

from headrace.dashboards.metabase.client import Access, Client
from headrace.dashboards.metabase.reconcile import Change, reconcile
from headrace.dashboards.metabase.wanted import Wanted, wanted

__all__ = ["Access", "Change", "Client", "Wanted", "reconcile", "wanted"]
