"""Propose columns for every field of a sample, objects and lists included."""

from __future__ import annotations

import polars as pl

from headrace.contracts.inference.arrow_types import follow
from headrace.contracts.inference.columns import Values, columns, members, most_common, shape, unpacked
from headrace.contracts.inference.exact import element_type
from headrace.contracts.inference.layout import flat
from headrace.contracts.inference.names import column_names, identifier
from headrace.contracts.inference.proposal import Proposal, counted, percent, shown
from headrace.contracts.inference.sample import Sample
from headrace.contracts.inference.scalars import ENOUGH, add_misfits, scalar


def proposals(sample: Sample) -> tuple[list[Proposal], list[str]]:
    """Propose a column for every field.

    Returns:
        The proposals with their names, and lines about fields that no column can hold.
    """
    found: list[Proposal] = []
    left_out: list[str] = []
    for values in columns(sample):
        if not values.path[0]:
            left_out.append("a column without a name is left out")
        else:
            _add(found, left_out, values, sample)
    names = column_names(one.path for one in found)
    for one in found:
        one.name = names[one.path]
        _as_required(one, len(sample.records))
    return found, left_out


def _add(found: list[Proposal], left_out: list[str], values: Values, sample: Sample) -> None:
    cells = sample.kind == "csv" and len(values.path) == 1
    values = unpacked(values) if cells else values
    kinds = values.kinds()
    kind = most_common(kinds) if kinds else ""
    if kind == "object":
        _add_objects(found, left_out, values, sample)
        return
    if kind == "array":
        _add_lists(found, left_out, values, sample)
        return
    if kind:
        name = identifier("_".join(values.path))
        of = "json" if sample.kind == "csv" and not cells else sample.kind
        one = scalar(values, kind, name, of, sample.numbers)
    else:
        one = Proposal(values.path, "text", "pl.String", {"length": (1, 256)}, "no value at all")
        one.missing = values.records
        one.decide.append("the sample has no value, so text is a guess")
    declared = sample.types.get(values.path[0])
    if declared is not None and len(values.path) == 1:
        follow(one, declared, binary=values.path[0] in sample.binary)
    found.append(one)


def _add_objects(found: list[Proposal], left_out: list[str], values: Values, sample: Sample) -> None:
    objects = values.of_kind("object")
    strange = [n for n, value in enumerate(values.values) if not isinstance(value, dict)]
    match shape(objects):
        case "columns":
            for member in members(objects):
                _add(found, left_out, member, sample)
            if strange:
                left_out.append(
                    f"{shown('.'.join(values.path))}: {counted(len(strange), 'values')} of the sample are no objects,"
                    f" the first is {shown(values.values[strange[0]])}"
                )
            return
        case "map":
            inner = Values(values.path, 0, [v for o in objects.values for v in o.values()]).kinds()
            proposal = Proposal(values.path, "map", "", {"required": True, "default": {}, "wire": "map"})
            numbers = "pl.Float64" if inner["number"] else "pl.Int64"
            proposal.dtype = "STRING_MAP" if inner["text"] else f"map_of({numbers})"
            names = {name for one in objects.values for name in one}
            proposal.seen = f"{len(names):,} names, up to {max(map(len, objects.values)):,} in one record"
        case _:
            proposal = Proposal(
                values.path, "object", "pl.String", {"wire": "object"}, "objects, kept as JSON text"
            )
    proposal.missing = values.missing
    add_misfits(
        proposal,
        "no objects",
        [values.values[n] for n in strange],
        [values.at[n] for n in strange],
        sample.numbers,
    )
    found.append(proposal)


def _add_lists(found: list[Proposal], left_out: list[str], values: Values, sample: Sample) -> None:
    lists = values.of_kind("array")
    strange = [n for n, value in enumerate(values.values) if not isinstance(value, list | tuple)]
    elements = Values(values.path, 0, [e for one in lists.values for e in one if e is not None])
    kinds = elements.kinds()
    kind = most_common(kinds) if kinds else "text"
    element = element_type(lists)
    if element is None:
        left_out.append(
            f"{shown('.'.join(values.path))}: lists of {kind}s that no column holds;"
            ' unknown="keep" would keep them as JSON'
        )
        return
    proposal = Proposal(values.path, "list", "", {"required": True, "default": []}, element=element)
    proposal.dtype = f"Annotated[pl.List, {flat(element)}]"
    most = max(map(len, lists.values), default=0)
    proposal.seen = f"up to {counted(most, 'elements')}" if kinds else "empty lists alone"
    if not kinds:
        proposal.decide.append("the sample has no element, so text is a guess")
    proposal.missing = values.missing
    add_misfits(
        proposal,
        "no lists",
        [values.values[n] for n in strange],
        [values.at[n] for n in strange],
        sample.numbers,
    )
    fitting = {kind, "integer"} if kind == "number" else {kind}
    wrong = [
        n
        for n, one in enumerate(lists.values)
        if not set(Values((), 0, [e for e in one if e is not None]).kinds()) <= fitting
    ]
    add_misfits(
        proposal,
        f"lists with other elements than {kind}",
        [lists.values[n] for n in wrong],
        [lists.at[n] for n in wrong],
        sample.numbers,
    )
    found.append(proposal)


def _as_required(one: Proposal, records: int) -> None:
    """Require what is never missing in enough records; say how often anything else is."""
    if one.kind not in ("map", "list"):
        if not one.missing and records >= ENOUGH:
            one.arguments["required"] = True
        elif one.missing and one.missing < records:
            one.seen += f"; missing in {percent(one.missing, records)}"
    if one.series.dtype == pl.Null:
        one.series = pl.Series([None], dtype=pl.Null).new_from_index(0, records) if records else one.series
