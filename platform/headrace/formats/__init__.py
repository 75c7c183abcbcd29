"""Read files as messages, for ``headrace send`` and for the archive source alike.

``base`` defines a record; ``ndjson``, ``csv``, ``parquet`` and ``access_log`` read one format each. ``records``
detects the format and decompresses.
"""

from headrace.formats.base import FORMATS, Format, Malformed, Record
from headrace.formats.records import FileReader, read_file

__all__ = ["FORMATS", "FileReader", "Format", "Malformed", "Record", "read_file"]
