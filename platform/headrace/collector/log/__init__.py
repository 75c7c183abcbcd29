"""Keep accepted entries on disk until the lake holds them.

``frames`` has the bytes of an entry, ``segments`` the files, ``log`` the one log of a process.
"""

from headrace.collector.log.frames import ID_BYTES, Entry
from headrace.collector.log.log import DurableLog, LogFull
from headrace.collector.log.reader import Reader
from headrace.collector.log.segments import Damage

__all__ = ["ID_BYTES", "Damage", "DurableLog", "Entry", "LogFull", "Reader"]
