"""Dagster and nothing else: assets of ten lines that call one function of a room."""

import warnings

from dagster import BetaWarning

# backfill policies and code references: what would break with them, tests see
warnings.filterwarnings("ignore", category=BetaWarning, module="headrace")
