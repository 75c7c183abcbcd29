"""Let contracts grow: what a field was in earlier versions, and what that means for their records and tables.

``declared`` holds what a field may declare and the arithmetic of versions, ``derived`` makes the contract as it was at
a version, ``faults`` finds contradictions at import, ``judged`` judges each record by the version that it claims.
"""

from headrace.contracts.growth.declared import Growth, Was

__all__ = ["Growth", "Was"]
