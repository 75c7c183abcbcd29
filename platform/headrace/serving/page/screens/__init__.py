"""The screens, in the order of the menu."""

from __future__ import annotations

from headrace.serving.page.screens import (
    funnel,
    hours,
    lake,
    live,
    measurements,
    overview,
    performance,
    quality,
    retention,
    sessions,
)
from headrace.serving.page.site import Screen

SCREENS: tuple[Screen, ...] = (
    overview.SCREEN,
    live.SCREEN,
    sessions.SCREEN,
    funnel.SCREEN,
    retention.SCREEN,
    hours.SCREEN,
    performance.SCREEN,
    measurements.SCREEN,
    quality.SCREEN,
    lake.INDEX,
)
