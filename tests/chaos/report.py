"""What a run found, for people and for programs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.judge import Verdict
from chaos.matrix import Cell
from chaos.runner import Outcome

_COLOURS = {
    Verdict.VERIFIED: "green",
    Verdict.VIOLATED: "red",
    Verdict.UNVERIFIED: "yellow",
    Verdict.SKIPPED: "dim",
}


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Nothing lost, nothing doubled, nothing unverified, and every negative control caught."""
    return all(o.as_expected for o in outcomes) and any(
        o.judgement.verdict != Verdict.SKIPPED for o in outcomes
    )


def hit_counts(outcomes: Sequence[Outcome]) -> Counter[str]:
    """How often each window was really hit."""
    return Counter(re.sub(r" #\d+$", "", hit) for o in outcomes for hit in o.hits)


def is_control(cell: Cell) -> bool:
    """Whether the cell breaches the protocol on purpose."""
    return cell.expect == Verdict.VIOLATED


def line(outcome: Outcome) -> str:
    """One line of progress."""
    verdict, expected = outcome.judgement.verdict, outcome.as_expected
    told = [] if expected and verdict != Verdict.SKIPPED else outcome.judgement.reasons
    why = "; ".join([*told, *outcome.notes])
    return f"{outcome.seconds:5.1f} s  {_shown(outcome):<10}  {outcome.cell.name}{': ' if why else ''}{why}"


def _shown(outcome: Outcome) -> str:
    if is_control(outcome.cell) and outcome.as_expected:
        return "CAUGHT"
    return "MISSED" if is_control(outcome.cell) else str(outcome.judgement.verdict)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """The matrix, the windows and the sum."""
    table = Table(title="Chaos: judged from the source's side")
    table.add_column("cell")
    table.add_column("window hit")
    for name in ("acknowledged", "landed", "rejected", "warehouse", "lost", "doubled"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for o in outcomes:
        j = o.judgement
        counts = (j.acknowledged, j.landed, j.rejected, j.warehouse, j.lost, j.doubled)
        colour = "green" if o.as_expected and j.verdict != Verdict.SKIPPED else _COLOURS[j.verdict]
        shown = f"[{colour}]{_shown(o)}[/]"
        table.add_row(o.cell.name, ", ".join(o.hits), *(f"{n:,}" for n in counts), shown)
    console.print(table)

    windows = Table(title="How often each window was hit")
    windows.add_column("window")
    windows.add_column("hits", justify="right")
    for window, count in sorted(hit_counts(outcomes).items()):
        windows.add_row(window, str(count))
    console.print(windows)
    for o in outcomes:
        if not o.as_expected or o.notes or o.judgement.verdict == Verdict.SKIPPED:
            console.print(line(o), highlight=False, markup=False)
    console.print(_sum(outcomes), highlight=False)


def summary(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The numbers that decide; lost and doubled without the negative controls'."""
    real = [o for o in outcomes if not is_control(o.cell)]
    ran = [o for o in real if o.judgement.verdict != Verdict.SKIPPED]
    controls = [o for o in outcomes if is_control(o.cell)]
    return {
        "cells": len(ran),
        "verified": sum(o.judgement.verdict == Verdict.VERIFIED for o in ran),
        "violated": sum(o.judgement.verdict == Verdict.VIOLATED for o in ran),
        "unverified": sum(o.judgement.verdict == Verdict.UNVERIFIED for o in ran),
        "skipped": len(real) - len(ran),
        "acknowledged": sum(o.judgement.acknowledged for o in ran),
        "lost": sum(o.judgement.lost for o in ran),
        "doubled": sum(o.judgement.doubled for o in ran),
        "controls": len(controls),
        "controls_caught": sum(o.as_expected for o in controls),
    }


def _sum(outcomes: Sequence[Outcome]) -> str:
    s = summary(outcomes)
    return (
        f"{s['cells']} cells, {s['acknowledged']:,} messages acknowledged: {s['lost']} lost, {s['doubled']} doubled;"
        f" {s['verified']} verified, {s['violated']} violated, {s['unverified']} unverified, {s['skipped']} skipped;"
        f" {s['controls_caught']} of {s['controls']} negative controls caught"
    )


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, for programs."""
    cells = [
        {
            "cell": o.cell.name,
            "control": is_control(o.cell),
            "hits": list(o.hits),
            "seconds": round(o.seconds, 1),
            "acknowledged": o.judgement.acknowledged,
            "landed": o.judgement.landed,
            "rejected": o.judgement.rejected,
            "warehouse": o.judgement.warehouse,
            "lost": o.judgement.lost,
            "doubled": o.judgement.doubled,
            "verdict": str(o.judgement.verdict),
            "reasons": o.judgement.reasons,
            "notes": list(o.notes),
        }
        for o in outcomes
    ]
    return {
        "passed": passed(outcomes),
        **summary(outcomes),
        "windows": dict(hit_counts(outcomes)),
        "matrix": cells,
    }
