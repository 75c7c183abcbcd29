"""The lake: append-only tables whose log also says how far each cursor has landed."""

from headrace.lake.base import ERASED, Erased, Extent, LakeTable, LakeVersion, Snapshot

__all__ = ["ERASED", "Erased", "Extent", "LakeTable", "LakeVersion", "Snapshot"]
