"""Say an error of Headrace in one line, as the command line does, in processes of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.core.errors import HeadraceError


@contextmanager
def said_in_one_line() -> Iterator[None]:
    """Log to standard error; end the process with status 1 and one line if the block raises an error of Headrace."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("headrace").setLevel(logging.INFO)
    try:
        yield
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        raise SystemExit(1) from None
