"""``make busy-hour``: an hour of live traffic beside a load that takes every core, with all checks every minute.

Exit status 0 only if no run failed, no check was red while data was exact, and every planted fault was found.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from busy.faults import FAULTS, Fault
from busy.platform import Platform, load, platform, waited
from headrace.streams.stream import Stream, streams

#: A run of all checks beside the load, seconds.
_PATIENCE = 900
_VIEWS = "deploy_views"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="busy-hour", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of live traffic; default 60")
    parser.add_argument("--rate", type=float, default=20, help="simulated events per second; default 20")
    parser.add_argument(
        "--load", type=int, default=os.cpu_count() or 2, help="spinning processes; default: cores"
    )
    parser.add_argument(
        "--home", type=Path, help="keep state and logs here; default: a folder that is removed"
    )
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory(prefix="headrace-busy-", ignore_cleanup_errors=True) as folder:
        home = given.home or Path(folder) / "home"
        home.mkdir(parents=True, exist_ok=True)
        words = ["--rate", str(given.rate), "--history", "1"]
        with platform(home.absolute(), words) as running, load(given.load):
            return _hour(running, given.minutes, console)


def _hour(running: Platform, minutes: float, console: Console) -> int:
    started = time.monotonic()
    console.print(f"UI {running.ui}, state in {running.home}")
    waited(lambda: _succeeded(running, _VIEWS), 900, "the views")
    console.print(
        f"views are deployed after {time.monotonic() - started:.0f} s; checks every minute from now on"
    )
    health = _checks_every_minute(running, started + minutes * 60, console)
    waited(lambda: _quiet(running, health), _PATIENCE, "the end of the last checks")
    failed = [run for run in running.runs.values() if run.status == "FAILURE"]
    red = [one for one in running.evaluations.values() if not one.passed]
    _show(running, console, f"{minutes:g} minutes of live traffic beside the load")
    for run in failed:
        console.print(f"[red]failed run[/] {run.job} {run.id}")
    for one in red:
        console.print(f"[red]red check[/] {one.check}: {one.said[:200]}")
    found = [_find(running, fault, console) for fault in FAULTS]
    well = not failed and not red and all(found)
    console.print(
        f"{len(running.runs)} runs, {len(failed)} failed; {len(red)} false alarms; "
        f"{sum(found)} of {len(found)} planted faults found: {'passed' if well else 'failed'}"
    )
    return 0 if well else 1


def _succeeded(running: Platform, job: str) -> bool:
    running.look()
    return any(run.job == job and run.status == "SUCCESS" for run in running.runs.values())


def _checks_every_minute(running: Platform, until: float, console: Console) -> list[str]:
    """Launch ``health`` every minute, or when the one before it has ended; gives the ids of the runs."""
    launched: list[str] = []
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        running.look()
        busy = launched and (launched[-1] not in running.runs or running.runs[launched[-1]].active)
        if now >= due and not busy:
            launched.append(running.launch("health"))
            due = now + 60
            failed = sum(run.status == "FAILURE" for run in running.runs.values())
            red = sum(not one.passed for one in running.evaluations.values())
            left = (until - now) / 60
            console.print(
                f"{left:.0f} min left: {len(running.runs)} runs, {failed} failed;"
                f" {len(running.evaluations)} evaluations, {red} red"
            )
        time.sleep(2)
    return launched


def _quiet(running: Platform, health: list[str]) -> bool:
    """Whether no run of the checks goes on that was launched here."""
    running.look()
    return all(one in running.runs and not running.runs[one].active for one in health)


def _find(running: Platform, fault: Fault, console: Console) -> bool:
    """Plant a fault, run all checks, and see whether the one that must be red is."""
    stream = _events(running)
    try:
        fault.plant(stream)
        for _ in range(3):  # a skipped message may be yet to come
            run = running.ended(running.launch("health"), _PATIENCE)
            name = f"{fault.check} of "
            red = [
                one
                for one in running.evaluations.values()
                if one.run_id == run.id and one.check.startswith(name) and not one.passed
            ]
            if red:
                console.print(f"[green]found[/] {fault.name}: {red[0].check}: {red[0].said[:200]}")
                fault.mend(stream)
                return True
        console.print(f"[red]not found[/] {fault.name}: {fault.check} stayed green")
        return False
    finally:
        stream.close()


def _events(running: Platform) -> Stream:
    return streams(running.settings, "events")["events"]


def _show(running: Platform, console: Console, title: str) -> None:
    runs = Table("job", "runs", "failed", title=title)
    jobs, failed = (
        Counter(run.job for run in running.runs.values() if wanted in ("", run.status))
        for wanted in ("", "FAILURE")
    )
    for job, number in sorted(jobs.items()):
        runs.add_row(job, str(number), str(failed[job]))
    checks = Table("check", "evaluated", "red", "no consistent look")
    every = sorted({one.check for one in running.evaluations.values()})
    for name in every:
        of = [one for one in running.evaluations.values() if one.check == name]
        red, unclear = sum(not one.passed for one in of), sum(one.inconclusive for one in of)
        checks.add_row(name, str(len(of)), str(red), str(unclear))
    console.print(runs)
    console.print(checks)


if __name__ == "__main__":
    sys.exit(main())
