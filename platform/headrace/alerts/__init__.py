"""Alerts: tell each channel once that something is wrong, and once that it has recovered.

A ``Problem`` is identified by the key of its cause. The ``Notifier`` keeps an alert per open problem, with the
channels that know of it, in a file below ``HEADRACE_HOME`` (ADR 11).
"""

from headrace.alerts.base import Channel, Notification, Problem, length
from headrace.alerts.channels import Address, Log, addresses, verify
from headrace.alerts.notifier import Alert, AlertState, Findings, Notifier, notifier

__all__ = [
    "Address",
    "Alert",
    "AlertState",
    "Channel",
    "Findings",
    "Log",
    "Notification",
    "Notifier",
    "Problem",
    "addresses",
    "length",
    "notifier",
    "verify",
]
