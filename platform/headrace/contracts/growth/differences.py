"""Compare two descriptions of a contract, and say of each difference who would break and what to do instead.

A contract may grow by what it declares (see ``declared``): the version that was recorded must be found again among the
earlier versions that the newer contract derives of itself. Where it is, producers, lake readers and marts go on. What
it changes without declaring it, and what it declares otherwise than was recorded, breaks somebody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from headrace.contracts.growth.checks import argument_text, changed_checks, shown
from headrace.contracts.growth.describe import VERSIONED
from headrace.contracts.growth.type_text import dtype_of_json, landed_json, spelled, stored_json, written
from headrace.core.widening import widens

Who = Literal["producers", "lake readers", "marts"]
Kind = Literal[
    "added", "removed", "renamed", "retired", "widened", "type", "tightened", "loosened", "required", "default",
    "message", "computed", "key", "time", "partition", "order_by", "unknown", "claims", "version", "oldest", "history",
]  # fmt: skip
Description = Mapping[str, Any]
Field = Mapping[str, Any]

PRODUCERS: frozenset[Who] = frozenset({"producers"})
READERS: frozenset[Who] = frozenset({"lake readers", "marts"})
MARTS: frozenset[Who] = frozenset({"marts"})
EVERYBODY: frozenset[Who] = PRODUCERS | READERS
NOBODY: frozenset[Who] = frozenset()

#: Order of those who break, as they are told.
WHO: tuple[Who, ...] = ("producers", "lake readers", "marts")


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two descriptions of a contract.

    Attributes:
        kind: The rule that it falls under.
        column: The column, or the contract's attribute, by its newer name; empty for the version itself.
        before: What was, as a person reads it; empty for nothing.
        after: What is.
        breaks: Who would break; empty if nobody does.
        said: One sentence: what to do instead, or what becomes of old rows and producers if nobody breaks.
    """

    kind: Kind
    column: str
    before: str
    after: str
    breaks: frozenset[Who]
    said: str

    @property
    def breaking(self) -> bool:
        """Whether somebody would break."""
        return bool(self.breaks)

    def __str__(self) -> str:
        change = " -> ".join(one or "none" for one in (self.before, self.after))
        whom = ", ".join(who for who in WHO if who in self.breaks)
        return f"{self.column or 'version'}: {self.kind}, {change}{f', breaks {whom}' if whom else ''}: {self.said}"


def differences(old: Description, new: Description) -> list[Difference]:
    """List what differs in a newer description of a contract, in the order of its fields.

    Args:
        old: What was recorded, by ``describe.described``, or by ``described_table``, of which the columns alone are
            compared.
        new: What is declared now, by ``described``.

    Raises:
        Fatal: A newer Headrace has written a type that this one does not know.
    """
    change = _Change(old, new)
    if not change.known:
        return list(_of_fields(change))
    if int(new["version"]) < change.version:
        said = f"a contract never goes back: take the newest one, or make the change in version {change.version + 1}"
        return [Difference("version", "", str(change.version), str(new["version"]), EVERYBODY, said)]
    found = [*_of_contract(change), *_of_fields(change)]
    return [*_of_version(change, changed=bool(found)), *found]


def at_version(field: Field, version: int) -> dict[str, Any] | None:
    """Return a described field as of a version; None if it did not exist.

    ``was`` holds up to and including its versions, the nearest one first; null there stands for a default.
    """
    if version < field.get("since", 1):
        return None
    found = {key: value for key, value in field.items() if key not in ("since", "was", "retired", "moved_to")}
    for until in sorted(map(int, field.get("was", {})), reverse=True):
        if version <= until:
            found |= field["was"][str(until)]
    if field.get("retired") is not None and version >= field["retired"]:
        found |= {"retired": True, "required": False}
    return {key: value for key, value in found.items() if value is not None}


def names_of(field: Field) -> list[str]:
    """Return the earlier names of a described field, the newest first."""
    was = field.get("was", {})
    found = [was[until]["name"] for until in sorted(was, key=int, reverse=True) if was[until].get("name")]
    return [name for name in dict.fromkeys(found) if name != field["name"]]


@dataclass(frozen=True)
class _Change:
    """Two descriptions, and what both say of the version that was recorded."""

    old: Description
    new: Description

    @property
    def known(self) -> bool:
        """Whether more than the columns were recorded."""
        return self.old.get("version") is not None

    @cached_property
    def version(self) -> int:
        """The version that was recorded; 1 if none was."""
        return int(self.old.get("version") or 1)

    @property
    def raised(self) -> bool:
        return int(self.new["version"]) > self.version

    @property
    def judged_apart(self) -> bool:
        """Whether records of the recorded version are judged by it from now on."""
        return self.raised and bool(self.new.get("claims")) and int(self.new.get("oldest", 1)) <= self.version

    @cached_property
    def pairs(self) -> list[tuple[Field | None, Field | None]]:
        """Fields before and after, in the order of the newer ones; None where one is missing.

        A field is found by its name in the recorded version, or by any other name that it had or has.
        """
        left = {field["name"]: field for field in self.old["fields"]}
        found: list[tuple[Field | None, Field | None]] = []
        own = {field["name"] for field in self.new["fields"]}
        for field in self.new["fields"]:
            names = [field["name"], *(name for name in names_of(field) if name not in own)]
            same = [left[name] for name in names if name in left]
            # a table may have a column by each of its names; of a contract, one is meant
            for one in same[:1] if self.known else same:
                del left[one["name"]]
            found.append((same[0] if same else None, field))
        return [*found, *((field, None) for field in left.values())]

    @cached_property
    def names(self) -> dict[str, str]:
        """Newer names by the recorded ones."""
        return {before["name"]: after["name"] for before, after in self.pairs if before and after}

    def next_version(self) -> int:
        """Return the version that a further change needs."""
        return max(int(self.new["version"]), self.version + 1)

    def declare(self, what: str) -> str:
        """Say how to declare what a field was up to the recorded version."""
        raised = "" if self.raised else f"raise version to {self.next_version()} and "
        return f"{raised}declare was={{{self.version}: Was({what})}} at the field"


def _of_version(change: _Change, *, changed: bool) -> Iterator[Difference]:
    before, after = change.version, int(change.new["version"])
    if after > before:
        yield Difference(
            "version", "", str(before), str(after), NOBODY, "rejected rows say which one judged them"
        )
    elif changed:
        said = f"raise it to {before + 1}, so that a version is one contract for ever"
        yield Difference("version", "", str(before), str(after), NOBODY, said)


def _of_contract(change: _Change) -> Iterator[Difference]:
    old, new = change.old, change.new
    for role in ("key", "time"):
        if change.names.get(old[role], old[role]) != new[role]:
            yield Difference(
                role, role, old[role], new[role], READERS,
                f"keep {role}={old[role]!r}, or declare another stream with the new {role}",
            )  # fmt: skip
    if old["partition"] != new["partition"]:
        yield Difference(
            "partition", "partition", old["partition"], new["partition"], READERS,
            f"keep partition={old['partition']!r}; files and parts are laid out by it",
        )  # fmt: skip
    order = [change.names.get(name, name) for name in old["order_by"]]
    if order != list(new["order_by"]):
        yield Difference(
            "order_by", "order_by", ", ".join(old["order_by"]), ", ".join(new["order_by"]), READERS,
            f"keep order_by={tuple(order)!r}; the warehouse cannot sort what is there anew",
        )  # fmt: skip
    yield from _of_oldest(change)
    yield from _of_claims(change)
    yield from _of_unknown(change)
    tighter = [name for name in new.get("checks", []) if name not in old.get("checks", [])]
    if tighter:
        yield Difference(
            "tightened", "", "", ", ".join(tighter), PRODUCERS,
            "check whole records in `transform` of a new stream, or ask the fields in a new version",
        )  # fmt: skip


def _of_oldest(change: _Change) -> Iterator[Difference]:
    before, after = int(change.old.get("oldest", 1)), int(change.new.get("oldest", 1))
    if after > before:
        last = min(after - 1, change.version)
        gone = f"version {before}" if before == last else f"versions {before} to {last}"
        yield Difference(
            "oldest", "oldest", str(before), str(after), PRODUCERS,
            f"keep oldest={before} until no producer sends {gone}",
        )  # fmt: skip
    elif after < before:
        yield Difference("oldest", "oldest", str(before), str(after), NOBODY, "more versions are accepted")


def _of_claims(change: _Change) -> Iterator[Difference]:
    before, after = change.old.get("claims"), change.new.get("claims")
    before = change.names.get(before, before) if before else before
    if before == after:
        return
    if before is None:
        yield Difference(
            "claims", "claims", "", str(after), NOBODY, "who says no version is judged by the newest"
        )
    else:
        yield Difference(
            "claims", "claims", str(before), str(after or ""), PRODUCERS,
            f"keep claims={before!r}, or who sends earlier versions is judged by the newest",
        )  # fmt: skip


def _of_unknown(change: _Change) -> Iterator[Difference]:
    before, after = change.old.get("unknown", "count"), change.new.get("unknown", "count")
    if before == after:
        return
    breaks: frozenset[Who] = PRODUCERS if after == "reject" else NOBODY
    said = "keep it until no producer sends other fields" if breaks else "other fields are accepted"
    if before == "keep":
        breaks, said = breaks | READERS, "keep it, since the column _extra is read"
    yield Difference("unknown", "unknown", before, after, breaks, said)


def _of_fields(change: _Change) -> Iterator[Difference]:
    for before, after in change.pairs:
        if after is None:
            assert before is not None
            yield _removed(change, before)
        elif before is None:
            yield from _added(change, after)
        elif change.known:
            yield from _of_field(_Pair(change, before, after))
        else:
            yield from _of_column(change, before, after)


def _removed(change: _Change, field: Field) -> Difference:
    name = field["name"]
    alike = [
        after["name"] for before, after in change.pairs
        if before is None and after is not None and landed_json(after["type"]) == landed_json(field["type"])
    ]  # fmt: skip
    hint = f"; if {alike[0]!r} is its new name, {change.declare(f'name={name!r}')} instead" if alike else ""
    breaks = NOBODY if field.get("apart") else READERS
    if change.new.get("unknown") == "reject" and not field.get("computed"):
        breaks |= PRODUCERS
    said = f"leave it in the contract with retired={change.next_version()}{hint}"
    return Difference(
        "removed", name, spelled(field["type"]), "", breaks, said if breaks else "nothing reads it"
    )


def _added(change: _Change, field: Field) -> Iterator[Difference]:
    new = at_version(field, int(change.new["version"]))
    if new is None or (
        new.get("apart") and not change.known
    ):  # it comes later, or is none of a table's columns
        return
    asked, default = bool(new.get("required")), new.get("default")
    declared = int(field.get("since", 1)) > change.version
    declare = f"{_raise(change)}declare since={change.next_version()} at the field"
    breaks, said = NOBODY, "rows of before have null"
    if asked and default is None and not new.get("computed"):
        breaks, said = PRODUCERS, "give it a default, or make it required once every producer sends it"
    elif new.get("apart"):
        said = "it is read and checked, and is no column"
    elif default not in (None, [], {}) and declared:
        said = f"rows of before have {default!r}"
    elif asked and default not in ([], {}) and not declared:
        breaks, said = READERS, f"{declare}: rows of before lack it, and say that it is never null"
    elif change.known and not declared:
        said = f"{declare}; rows of before have null"
    type = spelled(field["type"]) + (", required" if asked else "")
    yield Difference("added", field["name"], "", type, breaks, said)


def _raise(change: _Change) -> str:
    return "" if change.raised else f"raise version to {change.next_version()} and "


@dataclass(frozen=True)
class _Pair:
    """A field of both descriptions.

    Attributes:
        change: The descriptions.
        before: The field as it was recorded, of all its versions.
        after: The field as it is declared.
    """

    change: _Change
    before: Field
    after: Field

    @cached_property
    def was(self) -> dict[str, Any]:
        """The field in the recorded version, as recorded."""
        return at_version(self.before, self.change.version) or dict(self.before)

    @cached_property
    def said(self) -> dict[str, Any] | None:
        """The field in the recorded version, as the newer contract has it; None if it says there was none."""
        return at_version(self.after, self.change.version)

    @cached_property
    def now(self) -> dict[str, Any]:
        """The field in the newest version."""
        return at_version(self.after, int(self.change.new["version"])) or dict(self.after)

    @property
    def name(self) -> str:
        return str(self.after["name"])

    def declared(self, *keys: str) -> bool:
        """Tell whether the newer contract says of these keys what was recorded."""
        return self.change.raised and self.said is not None and all(
            self.said.get(key) == self.was.get(key) for key in keys
        )  # fmt: skip

    def changed(self, *keys: str) -> bool:
        return any(self.was.get(key) != self.now.get(key) for key in keys)


def _of_field(pair: _Pair) -> Iterator[Difference]:
    contradiction = _history(pair)
    if contradiction is not None:
        yield contradiction
        return
    if pair.was["name"] != pair.name:
        yield _renamed(pair)
    if pair.now.get("retired") and not pair.was.get("retired"):
        yield _retired(pair)
        return
    if pair.now.get("retired"):
        return
    yield from _of_type(pair)
    yield from _of_checks(pair)
    yield from _of_presence(pair)
    yield from _of_default(pair)
    yield from _of_message(pair)
    yield from _of_computing(pair)


def _history(pair: _Pair) -> Difference | None:
    """Find what a field declares of earlier versions otherwise than it was recorded."""
    return _of_coming(pair) or _of_lost_names(pair) or _of_versions(pair)


def _of_coming(pair: _Pair) -> Difference | None:
    """Compare the versions in which a field came and was retired. It may be retired in one that is not recorded."""
    for key, nothing in (("since", 1), ("retired", None)):
        recorded, declared = pair.before.get(key, nothing), pair.after.get(key, nothing)
        retired_later = key == "retired" and recorded is None and (declared or 0) > pair.change.version
        if recorded != declared and not retired_later:
            said = f"leave {key} out" if recorded == nothing else f"keep {key}={recorded}"
            if key == "retired" and declared is not None:
                said = f"declare retired={pair.change.version + 1}" if recorded is None else said
            before, after = ("" if one == nothing else f"{key}={one}" for one in (recorded, declared))
            return Difference("history", pair.name, before, after, EVERYBODY, f"{said}, as it was recorded")
    return None


def _of_lost_names(pair: _Pair) -> Difference | None:
    """Find an earlier name by which rows have the column, and which the newer contract does not know."""
    lost = [name for name in names_of(pair.before) if name not in (*names_of(pair.after), pair.name)]
    if not lost:
        return None
    until = max(int(version) for version, was in pair.before["was"].items() if was.get("name") == lost[0])
    said = f"keep was={{{until}: Was(name={lost[0]!r})}}: old rows have it by that name"
    return Difference("history", pair.name, f"name={lost[0]!r}", "", READERS, said)


def _of_versions(pair: _Pair) -> Difference | None:
    """Compare each accepted version, the newest first.

    Where the newer contract declares nothing of a field's past, the change itself is judged, elsewhere.
    """
    change = pair.change
    for version in range(change.version, max(_oldest(change.old), _oldest(change.new)) - 1, -1):
        recorded, declared = at_version(pair.before, version) or {}, at_version(pair.after, version) or {}
        for key in VERSIONED:
            one, other = recorded.get(key), declared.get(key)
            undeclared = one == pair.was.get(key) and other == pair.now.get(key)
            if one != other and not undeclared:
                before, after = f"{_shown(key, one)} in version {version}", _shown(key, other)
                whom = EVERYBODY if key in ("name", "type", "wire") else PRODUCERS
                was = f"was={{{version}: Was({_argument(key, one, other)})}}"
                said = f"declare {was} at the field, as it was recorded"
                return Difference("history", pair.name, before, after, whom, said)
    return None


def _oldest(description: Description) -> int:
    return int(description.get("oldest", 1))


def _said(key: str, value: Any) -> str:
    return "" if value is None else f"{key}={value}"


def _renamed(pair: _Pair) -> Difference:
    name, change = pair.was["name"], pair.change
    if change.raised and pair.said is not None and pair.said["name"] == name:
        said = f"messages may have both names; rows of before keep {name!r} in the lake"
        return Difference("renamed", pair.name, name, pair.name, NOBODY, said)
    return Difference("renamed", pair.name, name, pair.name, READERS, change.declare(f"name={name!r}"))


def _retired(pair: _Pair) -> Difference:
    type, version = spelled(pair.was["type"]), int(pair.after["retired"])
    where = pair.after.get("moved_to")
    said = f"newer rows have null{f', and what still comes is in {where!r}' if where else ''}"
    return Difference("retired", pair.name, type, f"retired={version}", NOBODY, said)


def _of_type(pair: _Pair) -> Iterator[Difference]:
    if not pair.changed("type", "wire"):
        return
    old, new = pair.was["type"], pair.now["type"]
    before, after = _typed(pair.was), _typed(pair.now)
    wider = widens(dtype_of_json(old), dtype_of_json(new))
    if pair.changed("wire"):
        wider = False
    elif landed_json(old) == landed_json(new):
        yield from _of_choices(pair, before, after, looser=wider or landed_json(old) == new)
        return
    if not wider:
        said = f"keep {before} and retire it, and add {after} under another name"
        yield Difference("type", pair.name, before, after, EVERYBODY, said)
    elif pair.declared("type"):
        loss = ", to the digit up to 2**53" if (old, new) == ("Int64", "Float64") else ""
        yield Difference("widened", pair.name, before, after, NOBODY, f"rows of before read as {after}{loss}")
    else:
        said = pair.change.declare(f"dtype={written(old)}")
        yield Difference("widened", pair.name, before, after, READERS, said)


def _of_choices(pair: _Pair, before: str, after: str, *, looser: bool) -> Iterator[Difference]:
    """Judge another choice of texts, which lands as text all the same."""
    if looser:
        yield Difference("loosened", pair.name, before, after, NOBODY, "what passed still passes")
    else:
        yield _tightened(pair, before, after, f"dtype={written(pair.was['type'])}", "type")


def _typed(field: Field) -> str:
    kind = {"uuid": "UUID", "object": "JSON object"}.get(field.get("wire", ""))
    return kind or spelled(field["type"])


def _of_checks(pair: _Pair) -> Iterator[Difference]:
    before, after = pair.was.get("checks", {}), pair.now.get("checks", {})
    numbers = isinstance(pair.now["type"], dict) and "decimal" in pair.now["type"]
    for change, old, new in changed_checks(before, after, numbers=numbers):
        if change == "loosened":
            yield Difference("loosened", pair.name, old, new, NOBODY, "what passed still passes")
        else:
            yield _tightened(pair, old, new, argument_text(before, after), "checks")


def _tightened(pair: _Pair, before: str, after: str, was: str, *keys: str) -> Difference:
    change, name = pair.change, pair.name
    if not pair.declared(*keys):
        return Difference("tightened", name, before, after, PRODUCERS, change.declare(was))
    return Difference("tightened", name, before, after, *_from_now_on(change))


def _from_now_on(change: _Change) -> tuple[frozenset[Who], str]:
    """Say who breaks of what is asked for from a version on."""
    version, claims = change.new["version"], change.new.get("claims")
    if change.judged_apart:
        return NOBODY, f"asked of records that say version {version}, or none, in {claims!r}"
    if claims is None:
        return (
            PRODUCERS,
            f"declare `claims`, the field that says a record's version: all are judged by {version} else",
        )
    return PRODUCERS, f"keep oldest={change.version} until no producer sends that version"


def _of_presence(pair: _Pair) -> Iterator[Difference]:
    if not pair.changed("required"):
        return
    if pair.now.get("required"):
        yield Difference(
            "required", pair.name, "may be null", "required", *_asked(pair, "required=False", "required")
        )
    else:
        yield Difference(
            "required", pair.name, "required", "may be null", NOBODY, "models may meet null in it"
        )


def _asked(pair: _Pair, was: str, *keys: str) -> tuple[frozenset[Who], str]:
    return _from_now_on(pair.change) if pair.declared(*keys) else (PRODUCERS, pair.change.declare(was))


def _of_default(pair: _Pair) -> Iterator[Difference]:
    if not pair.changed("default") or pair.name == pair.change.new.get("claims"):
        return  # a record that claims no version is judged by the newest
    old, new = pair.was.get("default"), pair.now.get("default")
    before, after = ("" if one is None else repr(one) for one in (old, new))
    was = f"default={old!r}"
    if new is None and pair.now.get("required"):
        yield Difference("default", pair.name, before, after, *_asked(pair, was, "default"))
    elif old is None:
        yield Difference("default", pair.name, before, after, NOBODY, "records without it get its default")
    elif pair.declared("default"):
        said = f"records of version {pair.change.new['version']} without it get another value"
        yield Difference("default", pair.name, before, after, NOBODY, said)
    else:  # rows of before it existed are read with it, too
        whom = READERS if int(pair.after.get("since", 1)) > 1 else MARTS
        yield Difference("default", pair.name, before, after, whom, pair.change.declare(was))


def _of_message(pair: _Pair) -> Iterator[Difference]:
    """Judge where and how a value is read from a message."""
    known = {pair.name, *pair.now.get("alias", []), *names_of(pair.after)}
    lost = [name for name in (pair.was["name"], *pair.was.get("alias", [])) if name not in known]
    path, place = pair.was.get("path"), pair.now.get("path")
    if path != place:
        before, after = (".".join(map(str, one or [pair.name])) for one in (path, place))
        yield Difference(
            "message", pair.name, before, after, PRODUCERS, f"keep the place {before!r} and add another field"
        )
    elif lost:
        yield Difference("message", pair.name, ", ".join(lost), "", PRODUCERS, f"keep alias={lost[0]!r}")
    elif pair.changed("alias"):
        more = ", ".join(name for name in pair.now.get("alias", []) if name not in pair.was.get("alias", []))
        yield Difference("message", pair.name, "", more, NOBODY, "messages may have both names")
    for key in ("formats", "nulls"):
        old, new = pair.was.get(key, []), pair.now.get(key, [])
        gone = [one for one in old if one not in new]
        if old == new:
            continue
        if gone or (key == "formats" and not old):
            said = f"keep {', '.join(map(repr, gone)) or 'the standard format'} among {_ARGUMENT[key]}"
            yield Difference("message", pair.name, ", ".join(old), ", ".join(new), PRODUCERS, said)
        else:
            yield Difference(
                "message", pair.name, ", ".join(old), ", ".join(new), NOBODY, "what was read still is"
            )
    for key in ("zone", "lower", "strip"):
        old, new = pair.was.get(key), pair.now.get(key)
        if old != new:
            before, after = (f"{key}={one!r}" if one else "" for one in (old, new))
            breaks = (PRODUCERS if key == "strip" and old else NOBODY) | (NOBODY if key == "strip" else MARTS)
            said = (
                f"keep {before or f'{key} out'}, and declare another field with it"
                if breaks
                else "values are trimmed"
            )
            yield Difference("message", pair.name, before, after, breaks, said)


_ARGUMENT = {"formats": "format", "nulls": "nulls"}


def _of_computing(pair: _Pair) -> Iterator[Difference]:
    for key in ("computed", "constant", "hashed"):
        if pair.changed(key):
            before, after = (_computed(one) for one in (pair.was, pair.now))
            said = "keep how it is computed, and declare another field with the new way"
            yield Difference("computed", pair.name, before, after, MARTS, said)
            break
    if pair.was.get("apart") != pair.now.get("apart"):
        type = spelled(pair.now["type"])
        if pair.now.get("apart"):
            said = f"keep it among the columns with retired={pair.change.next_version()}, instead of landed=False"
            yield Difference("removed", pair.name, type, "landed=False", READERS, said)
        else:
            yield Difference("added", pair.name, "landed=False", type, NOBODY, "rows of before have null")


def _computed(field: Field) -> str:
    if "constant" in field:
        return f"constant={field['constant']!r}"
    if "hashed" in field:
        return f"hashed={field['hashed']!r}"
    return str(field.get("computed", "read"))


def _of_column(change: _Change, before: Field, after: Field) -> Iterator[Difference]:
    """Judge a column of which nothing was recorded but its type in the table."""
    old, new = stored_json(before["type"]), stored_json(after["type"])
    if old == new:
        return
    seen = (spelled(old), spelled(new))
    if widens(dtype_of_json(old), dtype_of_json(new)):
        yield Difference("widened", after["name"], *seen, NOBODY, f"rows of before read as {seen[1]}")
    else:
        said = f"keep {seen[0]} and retire it, and add {seen[1]} under another name"
        yield Difference("type", after["name"], *seen, EVERYBODY, said)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return f"no {key}"
    if key == "type":
        return spelled(value)
    return shown(value) if key == "checks" else f"{key}={value!r}"


def _argument(key: str, value: Any, instead: Any) -> str:
    if key == "type":
        return f"dtype={written(value)}"
    return argument_text(value or {}, instead or {}) if key == "checks" else f"{key}={value!r}"
