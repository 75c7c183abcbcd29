"""Learn a contract from a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from headrace.contracts.inference.nested import proposals
from headrace.contracts.inference.proposal import Proposal, counted
from headrace.contracts.inference.roles import Roles, choose
from headrace.contracts.inference.sample import Sample
from headrace.contracts.inference.source import Place, contract_source, first_line
from headrace.core.errors import BadData


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a sample suggests.

    Attributes:
        stream: Name of the stream.
        columns: Its columns, with their names.
        roles: Its key, time and sorting key.
        left_out: Lines about fields that no column holds.
    """

    stream: str
    columns: Sequence[Proposal]
    roles: Roles
    left_out: Sequence[str]
    looked_at: str

    def contract(self, place: Place) -> str:
        """Return the source text of the contract."""
        return contract_source(self.stream, self.columns, self.roles, place, self.looked_at, self.left_out)


def infer(sample: Sample, stream: str, now: datetime) -> Inferred:
    """Propose columns and roles.

    Args:
        sample: Some records.
        stream: Name of the stream, an identifier.
        now: The time (UTC).

    Raises:
        BadData: The sample has no record, or no field.
    """
    if not sample.records:
        why = "; ".join(f"{n.count:,} {reason}, {n.example}" for reason, n in sample.wrong.items())
        raise BadData(f"{sample.name} has no record to learn from" + (f": {why}" if why else ""))
    found, left_out = proposals(sample)
    if not found:
        why = f": {'; '.join(left_out)}" if left_out else ""
        raise BadData(f"the records of {sample.name} have no field that a column can hold{why}")
    roles = choose(found, sample, stream, now)
    of = f"{sample.total:,}" if sample.exact else f"about {sample.total:,}"
    name = first_line(sample.name)
    if sample.exact and len(sample.records) == sample.total:
        looked = f"all {counted(sample.total, sample.unit)} of {name}"
    else:
        looked = f"{counted(len(sample.records), 'records')} of {of} {sample.unit} of {name}"
    return Inferred(stream, found, roles, left_out, looked)
