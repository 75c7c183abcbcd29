"""The lake: append-only tables whose log also says how far each cursor has landed."""

from headrace.lake.base import LakeTable, LakeVersion, Snapshot

__all__ = ["LakeTable", "LakeVersion", "Snapshot"]
