"""Write the source text of a contract and of its pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.contracts.inference.columns import path_text
from headrace.contracts.inference.layout import Call, Code, blocks, comment, flat, laid_out
from headrace.contracts.inference.proposal import DECIDE, Proposal, counted
from headrace.contracts.inference.roles import Roles

#: Arguments of ``field`` in the order in which they are written, after the description.
_ORDER = (
    "length", "required", "alias", "path", "format", "zone", "nulls", "strip", "low_cardinality", "wire", "default",
    "constant", "derive", "hashed",
)  # fmt: skip
#: Names that a generated contract imports.
_IMPORTED = frozenset({"Annotated", "Contract", "Time"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where the generated files will be.

    Attributes:
        contract: Module of the contract, as the pipeline imports it.
        own: Whether ``contracts`` is a package of the user's own, so that Headrace is a library among others.
    """

    contract: str
    own: bool


def model_name(stream: str) -> str:
    """Return the name of the model's class."""
    name = "".join(word[:1].upper() + word[1:] for word in stream.split("_")) or "Model"
    return f"{name}Model" if name in _IMPORTED else name


def constant_name(stream: str) -> str:
    """Return the name of the contract's constant."""
    return stream.upper()


def contract_source(
    stream: str,
    proposals: Sequence[Proposal],
    roles: Roles,
    place: Place,
    learnt_from: str,
    left_out: Sequence[str],
) -> str:
    """Write a contract.

    Args:
        stream: Name of the stream, an identifier.
        proposals: Its columns, with names.
        roles: Its key, time and sorting key.
        place: Where the file will be.
        learnt_from: One line for people about the sample, without quotes.
        left_out: Lines about fields that no column holds.
    """
    structs = [
        line
        for one in proposals
        if _has_constant(one)
        for line in ("", *laid_out(f"{_constant(one)} = ", one.element))
    ]
    fields = [line for one in proposals for line in _field(one, roles)]
    arguments: list[tuple[str, Any]] = [
        ("name", stream),
        ("version", 1),
        ("model", Code(model_name(stream))),
        ("key", roles.key),
        ("time", roles.time),
        ("partition", roles.partition),
        ("order_by", roles.order_by),
    ]
    declared = [f"{constant_name(stream)} = Contract("]
    for name, value in arguments:
        if name in roles.why:
            declared += comment(roles.why[name], 4)
        for text in roles.decide.get(name, ()):
            declared += comment(f"{DECIDE} {text}", 4)
        declared += laid_out(f"{name}=", value, ",", 4)
    declared.append(")")
    model = [
        f"class {model_name(stream)}(pa.DataFrameModel):",
        f'    """One row per record of `{stream}`; say here what a record is."""',
        "",
        *fields,
        *(line for text in left_out for line in comment(f"{DECIDE} {text}", 4)),
        "",
        "    class Config:",
        '        """Refuse columns that the model does not name."""',
        "",
        "        strict = True",
    ]
    head = [f'"""The contract of `{stream}`: what a record holds, and what is refused."""', ""]
    head += comment(f"Written by 'headrace contracts infer' from {learnt_from}.")
    head += comment(
        f'It is yours now: lines with "{DECIDE}" want a person, descriptions go to the catalogue and to dbt.'
    )
    return blocks(
        [head, [""], _imports("\n".join(fields), place), structs, ["", ""], model, ["", ""], declared]
    )


def _has_constant(one: Proposal) -> bool:
    """Tell whether a list's elements are objects, whose type gets a constant of its own."""
    return one.element is not None and "pl.Struct(" in one.dtype


def _constant(one: Proposal) -> str:
    return f"{one.name.upper()}_ELEMENT"


def _imports(fields: str, place: Place) -> list[str]:
    lines = ["from __future__ import annotations", ""]
    standard = ["from datetime import UTC, datetime"] if "constant=datetime(" in fields else []
    standard += ["from typing import Annotated"] if "Annotated[" in fields else []
    lines += [*standard, ""] if standard else []
    names = ["Contract", *(["Time"] if ": Time = " in fields else []), "field"]
    names += ["map_of"] if ": map_of(" in fields else []
    lines += ["import pandera.polars as pa", *(["import polars as pl"] if "pl." in fields else [])]
    lines += [] if place.own else [""]
    lines.append(f"from headrace.contracts import {', '.join(names)}")
    if ": STRING_MAP = " in fields:
        lines.append("from headrace.core.batch import STRING_MAP")
    return lines


def _field(one: Proposal, roles: Roles) -> list[str]:
    lines = comment(f"In the sample: {one.seen}.", 4) if one.seen else []
    for misfit in one.misfits:
        lines += comment(
            f"Will be rejected: {counted(misfit.count, 'values')} of the sample, {misfit.what}, the first is"
            f" {misfit.example}.",
            4,
        )
    for text in one.decide:
        lines += comment(f"{DECIDE} {text}.", 4)
    for text in one.hints:
        lines += comment(
            f"{text[:1].upper()}{text[1:]}." if text[:5] not in ("isin=", "lower") else f"{text}.", 4
        )
    given = {**one.arguments, **_read_from(one)}
    arguments = [("", _description(one, roles)), *((name, given[name]) for name in _ORDER if name in given)]
    dtype = f"Annotated[pl.List, {_constant(one)}]" if _has_constant(one) else one.dtype
    return lines + laid_out(f"{one.name}: {dtype} = ", Call("field", tuple(arguments)), indent=4)


def _read_from(one: Proposal) -> dict[str, Any]:
    """Say where in the message the value is, if not under the column's own name."""
    if len(one.path) > 1:
        return {"path": path_text(one.path)}
    if one.path and one.path[0] != one.name:
        return {"alias": one.path[0]}
    return {}


def _description(one: Proposal, roles: Roles) -> str:
    words = one.name.replace("_", " ")
    if one.name == roles.key:
        return f"{words}: identifies the record" + (
            "; a hash of its fields" if "hashed" in one.arguments else ""
        )
    if one.name == roles.time:
        return f"{words}: when it happened"
    measured = one.kind in ("integer", "number", "decimal") and not one.name.endswith("id")
    unit = ", with its unit" if measured else ""
    return f"{words}: say what it means{unit}"


def pipeline_source(stream: str, sources: Sequence[Call], place: Place, more: Sequence[str]) -> str:
    """Write a pipeline.

    Args:
        stream: Name of the stream.
        sources: Its sources, as declared.
        place: Where the file will be.
        more: Lines for people about other sources.
    """
    constant = constant_name(stream)
    kinds = sorted({call.function for call in sources})
    ours = f"from headrace.pipelines import {', '.join([*kinds, 'Pipeline'])}"
    theirs = f"from {place.contract} import {constant}"
    text = [
        f'"""The pipeline of `{stream}`: where its records come from, and whom alerts name."""',
        "",
        "from __future__ import annotations",
        "",
        *([ours, "", theirs] if place.own else [theirs, "", ours]),
        "",
        "pipeline = Pipeline(",
        f"    contract={constant},",
        *(line for one in more for line in comment(one, 4)),
        *laid_out("sources=", tuple(sources), ",", 4),
        *comment(f"{DECIDE} whom alerts name: an e-mail address or team:<name>.", 4),
        '    owner="team:data",',
        f'    description="Records of {stream}: say what they are, in one line",',
        f'    # models="{stream}": the tag of the dbt models that are built from it, once there are any',
        ")",
    ]
    return blocks([text])


def first_line(text: str) -> str:
    """Return a text for people as one line that is safe in a comment."""
    return flat(text)[1:-1]
