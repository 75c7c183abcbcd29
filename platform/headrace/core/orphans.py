"""End a process together with its parent, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(owner: int) -> None:
    """Let the system kill this process once its parent has died, also while it is stopped, where it can (Linux).

    It holds for the program that this process becomes, too.

    Args:
        owner: Process id that the parent is to have; if it died before, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != owner:
        os._exit(1)
