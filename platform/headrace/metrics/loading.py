"""Read a family of metrics from its file, and refuse what is wrong with file, key and the nearest right choice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.metrics.definitions import (
    FORMATS,
    IDENTIFIER,
    KINDS,
    PLACES,
    SHOWS,
    WINDOW,
    Dimension,
    Family,
    Metric,
    Model,
    without_texts,
)
from headrace.metrics.errors import DefinitionError, hint, nearest
from headrace.metrics.windows import WINDOWS

#: Names of columns of an answer, which no dimension may take.
RESERVED = ("window_start", "value", "previous")
_OWNER = re.compile(r"team:[A-Za-z0-9_]+|[^@\s:]+@[^@\s]+\.[^@\s]+")
_FAMILY = ("family", "label", "description", "stream", "owner", "models", "dimensions", "metrics")
_MODEL = (
    "schema",
    "time",
    "day",
    "widths",
    "width_column",
    "dimensions",
    "grain",
    "live",
    "final",
    "states",
    "where",
)
_DIMENSION = ("label", "description", "kind", "column", "sql", "within", "determines")
_METRIC = (
    "label", "description", "measure", "models", "dimensions", "where", "adds_up_over", "unit", "format", "show",
    "empty", "owner",
)  # fmt: skip
#: What no expression of a definition may hold: it is one expression, and reads nothing by itself.
_NO_EXPRESSION = re.compile(r";|--|/\*|\bselect\b|[{}`\"]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of the marts' windows, s: their own, and those of the roll-ups."""

    own: int = 60
    rollups: tuple[int, ...] = (3_600, 86_400)

    def named(self, text: str) -> tuple[int, ...]:
        """Return the widths that a definition names: ``own`` or ``rollups``."""
        return (self.own,) if text == "own" else tuple(w for w in self.rollups if w != self.own)


def read(file: Path, widths: Widths) -> Family:
    """Read a family from a file.

    Raises:
        DefinitionError: It cannot be read, is no YAML, or declares what is not possible.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(
            file, "", f"it cannot be read: {(error.strerror or str(error)).lower()}"
        ) from error
    except UnicodeDecodeError as error:
        raise DefinitionError(file, "", f"byte 0x{error.object[error.start]:02x} is no UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise DefinitionError(
            file, "", f"{at}it is no YAML: {getattr(error, 'problem', None) or error}"
        ) from None
    return family(content, file, widths)


def family(content: Any, file: Path | str, widths: Widths) -> Family:
    """Make a family of the content of a file.

    Raises:
        DefinitionError: It declares what is not possible.
    """
    return _Reader(file, widths).family(content)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks values where they stand; every error names file and key."""

    file: Path | str
    widths: Widths

    def wrong(self, key: str, said: str) -> DefinitionError:
        return DefinitionError(self.file, key, said)

    def family(self, content: Any) -> Family:
        given = self.table(content, "", _FAMILY, ("family", "stream", "models", "metrics"))
        name = self.identifier(given["family"], "family")
        label = self.text(given, "", "label", name.replace("_", " ").capitalize())
        description, owner = self.text(given, "", "description", ""), self.owner(given, "", None)
        stream = self.text(given, "", "stream")
        dimensions = {
            one: self.dimension(one, value) for one, value in self.named(given, "dimensions").items()
        }
        for one in dimensions.values():
            self.known(one.determines, dimensions, f"dimensions.{one.name}.determines", "dimension")
        models = {
            one: self.model(one, value, dimensions) for one, value in self.named(given, "models").items()
        }
        metrics = {
            one: self.metric(one, value, name, stream, owner, models, dimensions)
            for one, value in self.named(given, "metrics").items()
        }
        return Family(name, stream, label, description, owner, models, dimensions, metrics, str(self.file))

    def dimension(self, name: str, value: Any) -> Dimension:
        key = f"dimensions.{name}"
        if name in RESERVED:
            raise self.wrong(key, f"{name} is a column of every answer; choose another name")
        given = self.table(value, key, _DIMENSION, ("kind",))
        kind = self.choice(given["kind"], f"{key}.kind", KINDS)
        column, sql = self.text(given, key, "column", ""), self.text(given, key, "sql", "")
        if column and sql:
            raise self.wrong(key, "it has a column and sql; keep one of them")
        if sql:
            self.expression(sql.replace("{time}", "time"), f"{key}.sql")
        else:
            self.identifier(column or name, f"{key}.column")
        return Dimension(
            name,
            kind,
            self.text(given, key, "label", name.replace("_", " ").capitalize()),
            self.text(given, key, "description", ""),
            "" if sql else column or name,
            sql,
            self.within(given.get("within"), f"{key}.within"),
            self.texts(given, key, "determines"),
        )

    def within(self, value: Any, key: str) -> int:
        if value is None:
            return 0
        fixed = {name: one.seconds for name, one in WINDOWS.items() if one.seconds}
        return fixed[self.choice(value, key, tuple(fixed))]

    def model(self, name: str, value: Any, dimensions: Mapping[str, Dimension]) -> Model:
        key = f"models.{name}"
        given = self.table(value, key, _MODEL, ("time", "day"))
        own = self.texts(given, key, "dimensions")
        self.known(own, dimensions, f"{key}.dimensions", "dimension")
        grain = self.texts(given, key, "grain") if "grain" in given else own
        self.known(grain, own, f"{key}.grain", "dimension of the model")
        widths = self.widths_of(given.get("widths"), f"{key}.widths")
        width_column = self.text(given, key, "width_column", "")
        if len(widths) > 1 and not width_column:
            raise self.wrong(
                key, "it has windows of several widths; name the column of the width: width_column"
            )
        states = given.get("states") or {}
        if not isinstance(states, dict):
            raise self.wrong(f"{key}.states", "write a table of columns and the aggregates that make them")
        for column, sql in states.items():
            self.identifier(column, f"{key}.states")
            self.expression(sql, f"{key}.states.{column}")
        return Model(
            name,
            self.identifier(given["time"], f"{key}.time"),
            self.identifier(given["day"], f"{key}.day"),
            self.choice(given.get("schema", "marts"), f"{key}.schema", PLACES),
            widths,
            width_column and self.identifier(width_column, f"{key}.width_column"),
            own,
            grain,
            self.boolean(given, key, "live"),
            self.boolean(given, key, "final"),
            dict(states),
            self.condition(given, key),
        )

    def widths_of(self, value: Any, key: str) -> tuple[int, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            return self.widths.named(self.choice(value, key, ("own", "rollups")))
        found = value if isinstance(value, list) else [value]
        if any(type(one) is not int or not 1 <= one <= 86_400 for one in found):
            raise self.wrong(key, f"{value!r} is no width from 1 to 86400 s, no list of them, own or rollups")
        return tuple(found)

    def metric(
        self,
        name: str,
        value: Any,
        family: str,
        stream: str,
        owner: str,
        models: Mapping[str, Model],
        dimensions: Mapping[str, Dimension],
    ) -> Metric:
        key = f"metrics.{name}"
        given = self.table(value, key, _METRIC, ("label", "measure", "models"))
        measure = self.expression(given["measure"], f"{key}.measure")
        if "(" not in measure:
            raise self.wrong(
                f"{key}.measure", f"{measure!r} is no aggregate; write one, such as sum({measure})"
            )
        own = self.texts(given, key, "models")
        if not own:
            raise self.wrong(f"{key}.models", "it names no model")
        self.known(own, models, f"{key}.models", "model")
        possible = tuple(d for d in dimensions if any(d in models[m].dimensions for m in own))
        chosen = self.texts(given, key, "dimensions") if "dimensions" in given else possible
        self.known(chosen, possible, f"{key}.dimensions", "dimension of its models")
        over = self.texts(given, key, "adds_up_over") if "adds_up_over" in given else None
        self.known(over or (), (WINDOW, *possible), f"{key}.adds_up_over", "choice")
        found = Metric(
            name,
            family,
            stream,
            self.text(given, key, "label"),
            self.text(given, key, "description", ""),
            measure,
            own,
            chosen,
            self.text(given, key, "unit", ""),
            self.choice(given.get("format", "integer"), f"{key}.format", FORMATS),
            self.choice(given.get("show", "line"), f"{key}.show", SHOWS),
            self.owner(given, key, owner),
            self.condition(given, key),
            over,
            self.empty(given, key),
        )
        self.no_confusion(found, key, dimensions)
        for model in own:
            made = set(models[model].states)
            if found.columns & made and found.columns - made:
                lacks = ", ".join(sorted(found.columns - made))
                raise self.wrong(f"{key}.models", f"{model} makes states, and none of {lacks}")
        return found

    def no_confusion(self, metric: Metric, key: str, dimensions: Mapping[str, Dimension]) -> None:
        for one in metric.dimensions:
            if one in metric.columns and dimensions[one].column != one:
                raise self.wrong(
                    key,
                    f"{one} is a column that it measures and a dimension that is another; rename the dimension",
                )

    def empty(self, given: Mapping[str, Any], key: str) -> int | None:
        value = given.get("empty")
        if value is None or (type(value) is int and value == 0):
            return value
        raise self.wrong(f"{key}.empty", f"{value!r} is no value where there are no rows: 0, or leave it out")

    def owner(self, given: Mapping[str, Any], key: str, default: str | None) -> str:
        owner = self.text(given, key, "owner", default)
        if not _OWNER.fullmatch(owner):
            raise self.wrong(_join(key, "owner"), f"{owner!r} is neither team:NAME nor an e-mail address")
        return owner

    def expression(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"{value!r} is no SQL expression")
        if found := _NO_EXPRESSION.search(without_texts(value)):
            raise self.wrong(key, f"{found[0]!r} is in it: write one expression over columns of the model")
        if value.count("(") != value.count(")") or value.count("'") % 2:
            raise self.wrong(key, f"{value!r} lacks a bracket or a quote")
        return " ".join(value.split())

    def condition(self, given: Mapping[str, Any], key: str) -> str:
        value = given.get("where")
        return "" if value is None else self.expression(value, f"{key}.where")

    def table(self, value: Any, key: str, known: Iterable[str], needed: Iterable[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(key, f"{value!r} is no table; write {', '.join(needed) or 'keys'} below it")
        choices = tuple(known)
        for name in value:
            if name not in choices:
                raise self.wrong(_join(key, str(name)), f"there is no such key{self.near(name, choices)}")
        for name in needed:
            if value.get(name) is None:
                raise self.wrong(_join(key, name), "it is missing")
        return value

    def named(self, given: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = {} if given.get(name) is None else given[name]
        if not isinstance(value, dict):
            raise self.wrong(name, f"{value!r} is no table of names")
        for one in value:
            self.identifier(one, _join(name, str(one)))
        return value

    def identifier(self, value: Any, key: str) -> str:
        if not (isinstance(value, str) and IDENTIFIER.fullmatch(value)):
            raise self.wrong(key, f"{value!r} is no identifier: letters, digits and _, a letter first")
        return value

    def text(self, given: Mapping[str, Any], key: str, name: str, default: str | None = None) -> str:
        value = given.get(name, default)
        if value is None:
            raise self.wrong(_join(key, name), "it is missing")
        if not isinstance(value, str):
            raise self.wrong(_join(key, name), f"{value!r} is no text; write it in quotes")
        return " ".join(value.split())

    def texts(self, given: Mapping[str, Any], key: str, name: str) -> tuple[str, ...]:
        value = given.get(name)
        found = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.wrong(_join(key, name), f"{value!r} is no list of names")
        return tuple(dict.fromkeys(found))

    def boolean(self, given: Mapping[str, Any], key: str, name: str) -> bool:
        value = given.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(_join(key, name), f"{value!r} is neither true nor false")
        return value

    def choice(self, value: Any, key: str, choices: tuple[str, ...]) -> Any:
        if value not in choices:
            raise self.wrong(key, f"{value!r} is no choice{self.near(value, choices)}")
        return value

    def known(self, names: Iterable[str], there: Iterable[str], key: str, what: str) -> None:
        choices = tuple(there)
        for name in names:
            if name not in choices:
                raise self.wrong(key, f"there is no {what} {name!r}{self.near(name, choices)}")

    def near(self, name: Any, choices: Iterable[str]) -> str:
        listed = tuple(choices)
        return hint(nearest(name, listed), listed)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
