"""Make an event of a draft: give it its times and what is known of its client, once, and say whether it is plain."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from headrace.collector.base import Draft, Event, Refused, Seen
from headrace.contracts import Contract, Limits
from headrace.contracts.plain import Plain

#: Name, in ``properties``, of what the collector adds.
ABOUT = "$collector"
_ABOUT = b'"$collector"'
_RECEIVED, _PROPERTIES = "received_at", "properties"
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ANY = msgspec.json.Decoder(msgspec.Raw).decode
_TIME = msgspec.json.Decoder(datetime).decode
_TEXT = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode
_NULL = b"null"
#: Beginnings of objects that are empty, or that may be.
_SPACED = frozenset((b"{}", b"{ ", b"{\n", b"{\r", b"{\t"))


class Target:
    """A stream as the collector's door sees it. For one thread.

    Attributes:
        plain: Recognises records that need no judging; None if all do.
        longest: Bytes that an event may have on its way to the lake; None if nothing there limits it.
    """

    def __init__(self, contract: Contract, limits: Limits, longest: int | None = None) -> None:
        """Derive what is needed of a contract.

        Args:
            contract: The contract.
            limits: What the check accepts beside it.
            longest: Bytes that an event may have.
        """
        self.contract, self.limits, self.longest = contract, limits, longest
        self.name = contract.name
        self.plain = Plain.of(contract, limits, (_RECEIVED,))
        wires = {c.name: c.wire for c in contract.fields if c.shape is None}
        self.has_received = wires.get(_RECEIVED) == "time"
        self.has_properties = wires.get(_PROPERTIES) == "object"
        # a field with other names, places or formats stays as its producer wrote it
        self.time = contract.time if wires.get(contract.time) == "time" else None
        self.key = contract.key
        self.makes_ids = wires.get(contract.key) == "string"
        names = self.plain.names if self.plain else {}
        self.received_attribute = names.get(_RECEIVED) if self.has_received else None
        self.properties_attribute = names.get(_PROPERTIES) if self.has_properties else None

    def event(self, draft: Draft, seen: Seen, place: int) -> Event:
        """Make the event of a draft.

        Args:
            draft: The record.
            seen: What is known of its request.
            place: Place of the record in the request.

        Raises:
            Refused: The draft is no JSON.
        """
        plain, raw = self.plain, draft.raw
        record = None if plain is None else plain.read(raw)
        if plain is None or record is None or (payload := self._completed(plain, record, seen)) is None:
            return self._odd(draft, seen, place)
        identity = getattr(record, plain.key)
        return Event(self.name, payload, identity, _digest(seen, self.name, identity, raw), True)

    def events(self, drafts: Sequence[Draft], seen: Seen) -> list[Event]:
        """Make the events of all drafts of a request, which are of this stream; see ``event``."""
        plain = self.plain
        if plain is None or seen.sent is not None or len(drafts) == 1:
            return [self.event(draft, seen, place) for place, draft in enumerate(drafts)]
        raws = [draft.raw for draft in drafts]
        records = plain.read_all(raws)
        good = [record for record in records if record is not None]
        if not plain.all_timely(good, seen.received):
            return [self.event(draft, seen, place) for place, draft in enumerate(drafts)]
        if received := self.received_attribute:
            for record in good:
                setattr(record, received, seen.received)
        told = self._all_tell(good, seen.about)
        write, name, key = plain.write, self.name, attrgetter(plain.key)
        begin, made = f"{seen.sender}\0{name}\0".encode(), []
        for place, (draft, record) in enumerate(zip(drafts, records, strict=True)):
            if record is None or not (told or self._tells(record, seen.about)):
                made.append(self._odd(draft, seen, place))
                continue
            raw, identity = draft.raw, key(record)
            if identity:  # as _digest does
                whose = begin + identity.encode("utf-8", "surrogatepass")
                digest = blake2b(whose, digest_size=16).digest() + blake2b(raw, digest_size=8).digest()
            else:
                digest = os.urandom(24)
            made.append(Event(name, write(record), identity, digest, True))
        return made

    def _all_tell(self, records: Sequence[Any], about: bytes) -> bool:
        """Add to plain records what is known of their client; returns whether that was done to all, or else to none."""
        attribute = self.properties_attribute
        if not about or not attribute:
            return True
        begin = b"{" + _ABOUT + b":" + about
        alone, found = msgspec.Raw(begin + b"}"), []
        for properties in map(attrgetter(attribute), records):
            if properties is msgspec.UNSET:
                found.append(alone)
                continue
            raw = bytes(properties)
            if raw[:2] in _SPACED or _ABOUT in raw:
                return False
            found.append(msgspec.Raw(begin + b"," + raw[1:]))
        for record, told in zip(records, found, strict=True):
            setattr(record, attribute, told)
        return True

    def _tells(self, record: Any, about: bytes) -> bool:
        """Add to a plain record what is known of the client; returns whether that was possible."""
        attribute = self.properties_attribute
        if not about or not attribute:
            return True
        properties = getattr(record, attribute)
        told = _told(None if properties is msgspec.UNSET else bytes(properties), about)
        if told is None:
            return False
        setattr(record, attribute, msgspec.Raw(told))
        return True

    def _completed(self, plain: Plain, record: Any, seen: Seen) -> bytes | None:
        """Write a plain record with all that is known; None if it is not plain any more."""
        received = seen.received
        if not plain.timely(record, received, None if seen.sent is None else received - seen.sent):
            return None
        if self.received_attribute:
            setattr(record, self.received_attribute, received)
        return plain.write(record) if self._tells(record, seen.about) else None

    def _odd(self, draft: Draft, seen: Seen, place: int) -> Event:
        """Make the event of a draft which is not plain: member by member."""
        members = _members(draft.raw)
        if members is None:  # no object: the contract says so
            return Event(self.name, bytes(draft.raw), "", _digest(seen, self.name, "", draft.raw), False)
        identity = self._identified(members, draft, seen, place)
        whole = dict(members)
        self._timed(whole, draft, seen)
        if self.has_received:
            whole[_RECEIVED] = msgspec.Raw(_encode(seen.received))
        if seen.about and self.has_properties:
            told = _told(_bytes(whole.get(_PROPERTIES)), seen.about)
            if told is not None:
                whole[_PROPERTIES] = msgspec.Raw(told)
        payload = _encode(whole)
        record = self.plain.read(payload) if self.plain else None
        plain = record is not None and self.plain.timely(record, seen.received)  # type: ignore[union-attr]
        return Event(self.name, payload, identity, _digest(seen, self.name, identity, draft.raw), plain)

    def _identified(self, members: dict[str, msgspec.Raw], draft: Draft, seen: Seen, place: int) -> str:
        """Return the id of a record, which gets one if it lacks it; empty if it has none."""
        found = _bytes(members.get(self.key))
        if found is None and self.makes_ids and "id" in draft.fill:
            made = f"{seen.request_id}/{place}" if seen.request_id else str(uuid.uuid4())
            members[self.key] = msgspec.Raw(_encode(made))
            return made
        if found is None:
            return ""
        try:
            return _TEXT(found)
        except msgspec.DecodeError:
            return found.decode("utf-8", "replace")

    def _timed(self, members: dict[str, msgspec.Raw], draft: Draft, seen: Seen) -> None:
        """Correct the time of a record by the client's clock; a record without one may get that of its reception."""
        if self.time is None:
            return
        found = _bytes(members.get(self.time))
        if found is None:
            if "time" in draft.fill:
                members[self.time] = msgspec.Raw(_encode(seen.received))
            return
        if seen.sent is None:
            return
        try:
            original = _TIME(found)
            if original.tzinfo is not None:
                members[self.time] = msgspec.Raw(_encode(original + (seen.received - seen.sent)))
        except (msgspec.DecodeError, OverflowError):
            pass  # the contract says what is wrong with it


def targets(contracts: Mapping[str, tuple[Contract, Limits]]) -> dict[str, Target]:
    """Return the target of each stream by name."""
    return {name: Target(contract, limits) for name, (contract, limits) in contracts.items()}


def _members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """Return the members of an object; None for another JSON value."""
    try:
        try:
            return _MEMBERS(raw)
        except msgspec.ValidationError:  # which comes before the rest was looked at
            _ANY(raw)
            return None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}; nothing of it was taken") from None


def _bytes(raw: msgspec.Raw | None) -> bytes | None:
    """Return the text of a value; None for null."""
    found = None if raw is None else bytes(raw)
    return None if found == _NULL else found


def _told(properties: bytes | None, about: bytes) -> bytes | None:
    """Add to an object what is known of the client; None if it cannot be added."""
    if properties is None:
        return b"{" + _ABOUT + b":" + about + b"}"
    if not properties.startswith(b"{") or _ABOUT in properties:
        return None
    rest = properties[1:].lstrip()
    return b"{" + _ABOUT + b":" + about + (b"" if rest.startswith(b"}") else b",") + rest


def _digest(seen: Seen, stream: str, identity: str, raw: bytes | msgspec.Raw) -> bytes:
    """Return what tells a repeat: of an event without an id, nothing does."""
    if not identity:
        return os.urandom(24)
    whose = f"{seen.sender}\0{stream}\0{identity}".encode("utf-8", "surrogatepass")
    return blake2b(whose, digest_size=16).digest() + blake2b(raw, digest_size=8).digest()
