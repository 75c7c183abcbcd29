"""Dagster and nothing else: assets and sensors that call a function of a room."""

import gc
import warnings

# Dagster and dbt make a million objects that stay; a collection at every 700 of them costs a second
gc.set_threshold(50_000, 20, 20)

from dagster import BetaWarning  # noqa: E402

# backfill policies and code references are beta; tests see what a change of them breaks
warnings.filterwarnings("ignore", category=BetaWarning, module=r"headrace|dagster\._core\.decorator_utils")
