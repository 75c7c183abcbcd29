"""Ask a running Dagster over GraphQL, as its UI does.

The demo and the benchmarks use it, so they see the answers that a person sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

from headrace.core.errors import Fatal, Retriable

_RUNS = """
query Runs($limit: Int!) {
  runsOrError(limit: $limit) {
    ... on Runs { results { runId status jobName startTime endTime } }
  }
}"""
_CHECKS = """
query Checks {
  assetNodes {
    assetKey { path }
    assetChecksOrError {
      ... on AssetChecks { checks { name } }
    }
  }
}"""
_EXECUTIONS = """{alias}: assetCheckExecutions(assetKey: ${alias}_key, checkName: ${alias}_name, limit: 10) {{
    status evaluation {{ severity description }}
  }}"""
_DAEMONS = "query Daemons { instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"


_LAUNCH = """
mutation Launch($assets: [AssetKeyInput!], $days: [String!]) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $days}) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
_BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { __typename ... on PartitionBackfill { status } }
}"""

_RELOAD = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on PythonError { message }
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
  }
}"""
#: Dagster answers a reload once the definitions are loaded.
_RELOAD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Run:
    """A Dagster run. Times are seconds since 1970."""

    id: str
    status: str
    job: str
    start: float | None
    end: float | None

    @property
    def active(self) -> bool:
        """Whether it is queued or running."""
        return self.status not in ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True, slots=True)
class Check:
    """Latest result of an asset check. ``status`` is None if it never ran."""

    asset: str
    name: str
    status: str | None
    severity: str | None
    description: str | None


class DagsterApi:
    """Client of one Dagster webserver."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/graphql"
        self._session = requests.Session()

    def _ask(self, query: str, within: float = 15, **variables: Any) -> dict[str, Any]:
        asked: dict[str, Any] = {"query": query, "variables": variables}
        try:
            answer = self._session.post(self._url, json=asked, timeout=within)
            answer.raise_for_status()
            body = answer.json()
        except requests.RequestException as error:
            raise Retriable(f"the Dagster UI does not answer: {error}") from error
        if "errors" in body:
            raise Retriable(f"the Dagster UI refused: {body['errors'][0]['message']}")
        data: dict[str, Any] = body["data"]
        return data

    def runs(self, limit: int = 100) -> list[Run]:
        """Return the newest runs first."""
        found = self._ask(_RUNS, limit=limit)["runsOrError"].get("results", [])
        return [Run(r["runId"], r["status"], r["jobName"], r["startTime"], r["endTime"]) for r in found]

    def checks(self) -> list[Check]:
        """Return every asset check with its latest result, whatever its asset has materialised since."""
        found = [
            (node["assetKey"]["path"], check["name"])
            for node in self._ask(_CHECKS)["assetNodes"]
            for check in node["assetChecksOrError"].get("checks", [])
        ]
        if not found:
            return []
        aliases = [f"c{i}" for i in range(len(found))]
        declared = ", ".join(f"${alias}_key: AssetKeyInput!, ${alias}_name: String!" for alias in aliases)
        asked = "\n  ".join(_EXECUTIONS.format(alias=alias) for alias in aliases)
        values: dict[str, Any] = {}
        for alias, (path, name) in zip(aliases, found, strict=True):
            values |= {f"{alias}_key": {"path": path}, f"{alias}_name": name}
        answer = self._ask(f"query Executions({declared}) {{\n  {asked}\n}}", **values)
        return [
            latest("/".join(path), name, answer[alias])
            for alias, (path, name) in zip(aliases, found, strict=True)
        ]

    def launch_backfill(self, assets: Sequence[Sequence[str]], days: Sequence[str]) -> str:
        """Launch a backfill as the UI does, and return its id.

        Raises:
            Fatal: Dagster refuses it.
        """
        keys = [{"path": list(path)} for path in assets]
        answer = self._ask(_LAUNCH, assets=keys, days=list(days))["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise Fatal(f"Dagster refuses the backfill: {answer.get('message') or answer['__typename']}")
        return str(answer["backfillId"])

    def backfill(self, backfill_id: str) -> str:
        """Return a backfill's state in Dagster's words."""
        answer = self._ask(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        return str(answer.get("status") or answer["__typename"])

    def reload(self, location: str = "headrace") -> str:
        """Reload a code location, as the UI's *Reload* does, and return its error; empty if it loads.

        Raises:
            Retriable: The UI does not answer.
        """
        answer = self._ask(_RELOAD, within=_RELOAD_SECONDS, location=location)["reloadRepositoryLocation"]
        found = answer.get("locationOrLoadError") or answer
        return " ".join(str(found.get("message", "")).split())[:300]

    def healthy(self) -> bool:
        """Tell whether every required daemon is healthy."""
        statuses = self._ask(_DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(s["healthy"] for s in statuses if s["required"])


def latest(asset: str, name: str, executions: Sequence[dict[str, Any]]) -> Check:
    """Make a check of its executions, newest first: of the newest with a result, one that failed to run included.

    Those that run, or that their run has skipped, count only if there is nothing else.
    """
    ended = (e for e in executions if e["evaluation"] or e["status"] == "EXECUTION_FAILED")
    last = next(ended, executions[0] if executions else {})
    judged = last.get("evaluation") or {}
    return Check(asset, name, last.get("status"), judged.get("severity"), judged.get("description"))
