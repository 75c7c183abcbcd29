"""The lake: append-only tables whose log also says how far each cursor has landed."""

from headrace.lake.base import Erased, LakeTable, LakeVersion, Snapshot

__all__ = ["Erased", "LakeTable", "LakeVersion", "Snapshot"]
