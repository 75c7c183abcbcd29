"""One installation of the wheel for all tests of a worker."""

from __future__ import annotations

import pytest

from installed import Installation, install


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own."""
    return install(tmp_path_factory.mktemp("installed"))
