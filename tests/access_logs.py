"""Logs of a real web server: a sample, and the whole one where it is beside the checkout (``data/README.md``)."""

from __future__ import annotations

from pathlib import Path

import pytest

#: 517 requests, one line of them broken.
SAMPLE = Path(__file__).parent / "data" / "web-access-sample.log.gz"
_WHOLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "web-access.log.gz"
_NEEDS_IT = pytest.mark.skipif(not _WHOLE.is_file(), reason=f"{_WHOLE} is not there")
#: Parameters for a test of both.
BOTH = [pytest.param(SAMPLE, id="sample"), pytest.param(_WHOLE, id="whole", marks=_NEEDS_IT)]
#: The whole one, else the sample.
LARGEST = _WHOLE if _WHOLE.is_file() else SAMPLE
