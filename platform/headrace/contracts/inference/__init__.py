"""Learn a contract from a sample: records in, proposals and source text out. Reads and writes nothing.

``sample`` holds records, ``columns`` turns them by field. ``scalars``, ``texts`` and ``nested`` propose columns,
``roles`` chooses key, time and sorting key, ``source`` and ``layout`` write them down.
"""

from headrace.contracts.inference.infer import Inferred, infer
from headrace.contracts.inference.sample import Sample
from headrace.contracts.inference.source import Place

__all__ = ["Inferred", "Place", "Sample", "infer"]
