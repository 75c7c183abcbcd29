"""Dagster and nothing else: assets of ten lines that call one function of a room."""

import gc
import warnings

# Dagster, dbt and their kin make a million objects that stay; looking through them at every 700 costs a second
gc.set_threshold(50_000, 20, 20)

from dagster import BetaWarning  # noqa: E402

# backfill policies and code references: what would break with them, tests see
warnings.filterwarnings("ignore", category=BetaWarning, module=r"headrace|dagster\._core\.decorator_utils")
