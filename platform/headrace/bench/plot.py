"""Plot the figures of ``docs/performance.md``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from headrace.bench.peers import PEERS

matplotlib.use("svg")
from matplotlib import pyplot

_OURS, _OTHERS, _BARE, _MEMORY = "#1f6f8b", "#b0b7bd", "#d9c58b", "#a3502f"
_BARS = {
    "fetch": ("kafka-python alone, whole batches", _BARE),
    "parse": ("JSON parser alone", _BARE),
    "check": ("decoding and checking alone", _BARE),
    "write": ("Delta writer alone", _BARE),
    "insert": ("ClickHouse insert alone", _BARE),
    "delta": ("Headrace: Kafka to Delta", _OURS),
    "delta_clickhouse": ("Headrace: Kafka to Delta and ClickHouse", _OURS),
    **{name: (peer.said.partition(":")[0], _OTHERS) for name, peer in PEERS.items()},
    "dlt": ("dlt, rows", _OTHERS),
    "dlt_arrow": ("dlt, Arrow tables", _OTHERS),
}


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw throughput and scale, as far as there are figures."""
    panels = [name for name in ("throughput", "scale") if name in figures]
    if not panels:
        return
    # the same figures produce the same file
    style = {"svg.hashsalt": "headrace", "font.family": "DejaVu Sans", "font.size": 10}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(1, len(panels), figsize=(6.2 * len(panels), 4.4), squeeze=False)
        for name, one in zip(panels, axes[0], strict=True):
            (_bars if name == "throughput" else _lines)(one, figures[name])
            one.spines[["top", "right"]].set_visible(False)
        figure.tight_layout(w_pad=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _bars(axes: Any, found: Mapping[str, Any]) -> None:
    shown = [(*_BARS[name], found["series"][name]) for name in _BARS if name in found["series"]]
    shown.reverse()  # the first is at the top
    rates = [one["events_per_second"] / 1_000 for _, _, one in shown]
    spans = [
        [(one["events_per_second"] - one["lowest"]) / 1_000 for _, _, one in shown],
        [(one["highest"] - one["events_per_second"]) / 1_000 for _, _, one in shown],
    ]
    places = range(len(shown))
    axes.barh(places, rates, color=[color for _, color, _ in shown], xerr=spans, ecolor="#555555", capsize=2)
    axes.set_yticks(places, [name for name, _, _ in shown])
    most = max(one["highest"] for _, _, one in shown) / 1_000
    for place, (rate, (_, _, one)) in enumerate(zip(rates, shown, strict=True)):
        axes.text(one["highest"] / 1_000 + most * 0.015, place, f"{rate:,.0f}", va="center", fontsize=9)
    axes.set_xlim(0, most * 1.12)
    axes.set_xlabel("thousand events per second, 2 cores")


def _lines(axes: Any, found: Mapping[str, Any]) -> None:
    # the last checkpoint repeats the events of the one before, after publishing
    marks = {mark["events"]: mark for mark in found["drained"][-1]["marks"]}.values()
    events = [mark["events"] / 1e6 for mark in marks]
    costs = [mark["cpu_seconds"] / mark["events"] * 1e6 for mark in marks]
    memory = [mark["held_bytes"] / 1e9 for mark in marks]
    axes.plot(events, costs, color=_OURS)
    axes.set_xlabel("million events of one run")
    axes.set_ylabel("core seconds per million events so far", color=_OURS)
    axes.set_ylim(0, max(costs) * 1.4)
    beside = axes.twinx()
    beside.plot(events, memory, color=_MEMORY)
    beside.set_ylabel("memory that the process holds, GB", color=_MEMORY)
    beside.set_ylim(0, max(memory) * 1.4)
    beside.spines["top"].set_visible(False)
