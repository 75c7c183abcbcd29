"""Private interfaces of others: each is tried before it is used, and has the stock way behind it.

Dagster is pinned exactly, and a test notices an upgrade that moves what is used here. A trial protects an
installation that has another version all the same: it goes on, slower, and says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

#: What was tried in this process, and whether it works; a forked process inherits it.
_outcomes: dict[str, bool] = {}


def works(what: str, trial: Callable[[], object], *, instead: str) -> bool:
    """Try a private interface once in this process.

    Args:
        what: Its name, for the warning.
        trial: Uses the interface without a trace, and raises where anything is not as expected.
        instead: Consequence of doing without it, for the warning.

    Returns:
        False where the trial failed; the first caller's log then has one warning.
    """
    if what not in _outcomes:
        try:
            trial()
        except Exception as error:  # whatever another version does otherwise
            why = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning(
                "%s: this version of Dagster or Python is built differently (%s); %s", what, why, instead
            )
            _outcomes[what] = False
        else:
            _outcomes[what] = True
    return _outcomes[what]


def require(found: object, what: str) -> None:
    """Fail a trial.

    Raises:
        LookupError: ``found`` is false.
    """
    if not found:
        raise LookupError(what)
