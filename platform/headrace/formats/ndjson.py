"""Read NDJSON: one JSON object, or an array of them, per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import msgspec

from headrace.contracts import Contract
from headrace.formats.base import Record, key_names, key_of, lines, malformed


def read(file: IO[bytes], contract: Contract) -> Iterator[Record]:
    """Read every line as it is, keyed by its key column."""
    names = key_names(contract)
    attributes = [f"f{n}" for n in range(len(names))]
    keyed = msgspec.json.Decoder(
        msgspec.defstruct(
            "Keyed", [(a, Any, None) for a in attributes], rename=dict(zip(attributes, names, strict=True))
        )
    )
    anything = msgspec.json.Decoder()
    for number, line, overlong in lines(file):
        if overlong:
            yield overlong
            continue
        try:
            line.decode()
            found = keyed.decode(line)
            key = next((v for a in attributes if (v := getattr(found, a)) is not None), None)
        except msgspec.ValidationError:  # valid JSON so far, but no object
            try:
                value = anything.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                yield malformed(number, f"not JSON ({error})", line)
                continue
            if not isinstance(value, list):
                yield malformed(number, "neither an object nor an array", line)
                continue
            first = value[0] if value else None
            key = (
                next((first[n] for n in names if first.get(n) is not None), None)
                if isinstance(first, dict)
                else None
            )
        except UnicodeDecodeError as error:
            yield malformed(number, f"not UTF-8 ({error.reason} at byte {error.start})", line)
            continue
        except (msgspec.DecodeError, RecursionError) as error:
            yield malformed(number, f"not JSON ({error})", line)
            continue
        yield line, key_of(key), None
