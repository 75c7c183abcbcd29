"""Formats: what files hold, as messages. ``headrace send`` and the archive source read files in the same way.

``base`` says what a record is; ``ndjson``, ``csv``, ``parquet`` and ``access_log`` read one format each; ``records``
tells formats apart and unpacks what is compressed.
"""

from headrace.formats.base import FORMATS, Format, Malformed, Record
from headrace.formats.records import FileReader, read_file

__all__ = ["FORMATS", "FileReader", "Format", "Malformed", "Record", "read_file"]
