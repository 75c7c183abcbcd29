"""Dagster's types that have no public name, for annotations alone: nothing here exists while a process runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import JobDefinition
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

    Job = JobDefinition | UnresolvedAssetJobDefinition
else:
    AssetCheckExecutionRecord = InstanceRef = Job = Any

__all__ = ["AssetCheckExecutionRecord", "InstanceRef", "Job"]
