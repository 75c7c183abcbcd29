"""Find what is wrong with exported dashboards: with their form, with what they ask for, and with the files on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from headrace.collector.meters import Counts
from headrace.dashboards.grafana.panels import CLICKHOUSE, PROMETHEUS, REFRESH
from headrace.dashboards.prometheus import recorded
from headrace.telemetry.families import FAMILIES

_COLUMNS = 24
_UID = re.compile(r"headrace-[a-z0-9_-]{1,31}")
_MACRO = re.compile(r"\$__(\w+)")
_VARIABLE = re.compile(r"\$\{?([a-z]\w*)")
_MEASUREMENT = re.compile(r"\b((?:headrace|kafka)_[a-z_]+|\w+:headrace_\w+)(?![\w:])")
#: What ``metrics.expanded`` fills in.
_MACROS = {"fromTime", "toTime", "conditionalAll"}


def problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a dashboard, as Grafana's JSON."""
    data = json.loads(text)
    if not _UID.fullmatch(str(data.get("uid", ""))):
        yield f"uid {data.get('uid')!r} is none of ours"
    if data.get("refresh") != REFRESH:
        yield f"it refreshes every {data.get('refresh')}, not every {REFRESH}"
    yield from _unlike_the_types(data)
    panels = list(panels_of(data))
    if len({panel.get("id") for panel in panels}) < len(panels):
        yield "two panels have one id"
    variables = {one["name"] for one in data.get("templating", {}).get("list", [])}
    for panel in panels:
        said = f"panel {panel.get('title') or panel.get('id')!r}"
        yield from (f"{said}: {why}" for why in _wrong(panel, variables))
    for one, other in combinations(panels, 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"panels {one['title']!r} and {other['title']!r} lie upon each other"


def panels_of(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels of a dashboard, also those in rows; no rows."""
    for one in data.get("panels", []):
        if one.get("type") == "row":
            yield from one.get("panels", [])
        else:
            yield one


def _unlike_the_types(data: Mapping[str, Any]) -> Iterator[str]:
    """Say which keys Grafana's own types do not have: they come back without them."""
    read = Dashboard.from_json(dict(data))
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    yield from (f"Grafana has no {path}" for path in sorted(_lost(data, again)))


def _lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    if isinstance(given, Mapping):
        kept = kept if isinstance(kept, Mapping) else {}
        for key, value in given.items():
            if key not in kept:
                yield f"{path}.{key}".lstrip(".")
            else:
                yield from _lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list):
        for place, (one, other) in enumerate(zip(given, kept, strict=False)):
            yield from _lost(one, other, f"{path}[{place}]")


def _wrong(panel: Mapping[str, Any], variables: set[str]) -> Iterator[str]:
    for key in ("title", "description"):
        if not str(panel.get(key) or "").strip():
            yield f"it has no {key}"
    if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
        yield "it has no unit"
    place = panel.get("gridPos", {})
    if place.get("x", 0) + place.get("w", _COLUMNS + 1) > _COLUMNS:
        yield f"it does not fit into {_COLUMNS} columns"
    targets = panel.get("targets", [])
    if not targets:
        yield "it asks for nothing"
    for target in targets:
        uid = target.get("datasource", {}).get("uid")
        if uid != panel.get("datasource", {}).get("uid") or uid not in (CLICKHOUSE, PROMETHEUS):
            yield f"datasource {uid!r} is none of ours, or not the panel's"
        elif uid == CLICKHOUSE:
            yield from wrong_sql(target.get("rawSql", ""), variables)
        else:
            yield from wrong_promql(target.get("expr", ""))


def wrong_sql(sql: str, variables: set[str]) -> Iterator[str]:
    """Say which macros and variables of a statement nobody fills in."""
    if not sql:
        yield "it has no SQL"
    yield from (f"there is no macro $__{name}" for name in sorted({*_MACRO.findall(sql)} - _MACROS))
    yield from (f"there is no variable ${name}" for name in sorted({*_VARIABLE.findall(sql)} - variables))


def wrong_promql(expression: str) -> Iterator[str]:
    """Say which measurements of an expression nothing tells."""
    asked = set(_MEASUREMENT.findall(expression))
    if not asked:
        yield f"{expression!r} asks for no measurement of ours"
    known = {one.name for one in FAMILIES} | recorded()
    passed_on = set(re.findall(r"^# TYPE (\w+) ", Counts().text({}), re.MULTILINE))
    for name in sorted(asked - known):
        if re.sub("_(bucket|sum|count)$", "", name) not in passed_on:
            yield f"nothing tells {name}"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (apart_x or apart_y)


def differences(folder: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    """Say which files of a folder are not those that would be exported now."""
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.read_text(encoding="utf-8") != text:
            yield f"{name} is another one than would be exported now"
    ours = {f"dashboards/{path.name}" for path in (folder / "dashboards").glob("headrace-*.json")}
    yield from (f"{name} is exported no longer; remove it" for name in sorted(ours - wanted.keys()))


def statements(text: str) -> Iterator[tuple[str, str]]:
    """Yield the SQL of every panel and variable of a dashboard, with what it is of."""
    data = json.loads(text)
    for panel in panels_of(data):
        for target in panel.get("targets", []):
            if "rawSql" in target:
                yield f"panel {panel.get('title')!r}", str(target["rawSql"])
    for variable in data.get("templating", {}).get("list", []):
        yield f"variable {variable['name']!r}", str(variable["query"])


def expressions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the PromQL of every panel of a dashboard, with its title."""
    for panel in panels_of(json.loads(text)):
        for target in panel.get("targets", []):
            if "expr" in target:
                yield str(panel.get("title")), str(target["expr"])
