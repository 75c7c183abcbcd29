"""Write a contract as a page of Markdown for those who produce."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.contracts.export.message import Member, check_texts, message_of, retired_columns
from headrace.contracts.growth.describe import described
from headrace.contracts.growth.differences import Difference, differences
from headrace.contracts.growth.type_text import spelled

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

_UNKNOWN = {
    "count": "Other fields are counted and ignored.",
    "reject": "A message with other fields is rejected.",
    "keep": "Other fields are kept, as JSON.",
}


def markdown(contract: Contract) -> str:
    """Return a page: what a message has, and what each version changed."""
    message = message_of(contract)
    lines = [f"# {contract.name}, version {contract.version}", "", message.description, ""]
    lines += [f"A message is a JSON object. {_UNKNOWN[contract.unknown]} {_versions(contract)}".strip(), ""]
    lines += ["| field | type | | meaning |", "|---|---|---|---|"]
    lines += [_row(path, member) for path, member in _leaves(message, "")]
    lines += ["", f"`{contract.key}` identifies a record for its producer, `{contract.time}` is its time."]
    retired = retired_columns(contract)
    if retired:
        names = ", ".join(f"`{column.name}`" for column in retired)
        lines += ["", f"No longer asked for, and ignored if it comes: {names}."]
    lines += _history(contract)
    return "\n".join(lines) + "\n"


def _versions(contract: Contract) -> str:
    if contract.claims is None:
        return ""
    versions = f"version {contract.version}" if len(contract.accepted) == 1 else "versions "
    if len(contract.accepted) > 1:
        versions += f"{contract.oldest} to {contract.version}"
    return (
        f"It says its version in `{contract.claims}`; {versions} can be sent, and without it"
        f" a message is judged by version {contract.version}."
    )


def _leaves(member: Member, path: str) -> Iterator[tuple[str, Member]]:
    for name, one in member.members.items():
        at = f"{path}[]" if name == "[]" else f"{path}.{name}" if path else name
        if one.of is not None:
            yield at, one
        else:
            yield from _leaves(one, at)


def _row(path: str, member: Member) -> str:
    assert member.of is not None
    kind = {"uuid": "UUID", "object": "JSON object"}.get(member.of.column.wire) or spelled(member.of.type)
    said = "; ".join([member.description, *check_texts(member.of.checks)])
    earlier = member.of.column.growth.earlier(member.of.column.name)
    if aliases := [f"`{name}`" for name in member.aliases if name not in earlier]:
        said += f"; also under {', '.join(aliases)}"
    cells = (f"`{path}`", kind, "required" if member.required else "", said)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _history(contract: Contract) -> list[str]:
    """Say what each version changed, the newest first."""
    lines = []
    for version in range(contract.version, 1, -1):
        before, after = described(contract.at(version - 1)), described(contract.at(version))
        found = [one for one in differences(before, after) if one.kind != "version"]
        lines += [
            f"- Version {version}: " + ("; ".join(_changed(one) for one in found) or "the same fields") + "."
        ]
    return ["", "## Versions", "", *lines] if lines else []


def _changed(one: Difference) -> str:
    change = " to ".join(text for text in (one.before, one.after) if text)
    return f"`{one.column}` {one.kind}, {change}"
