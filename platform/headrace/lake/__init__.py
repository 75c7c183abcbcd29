"""Store streams as append-only tables whose log also records how far each cursor has landed.

``delta`` is the adapter; ``memory`` is its twin for tests. ``suppression`` lists the people who were erased.
"""

from headrace.lake.base import AGAIN, ERASED, RESTORED, Erased, Extent, LakeTable, LakeVersion, Snapshot

__all__ = ["AGAIN", "ERASED", "RESTORED", "Erased", "Extent", "LakeTable", "LakeVersion", "Snapshot"]
