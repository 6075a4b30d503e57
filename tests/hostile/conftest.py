"""One process for all that is read apart."""

import pytest

from hostile.outcome import Apart


@pytest.fixture(scope="session")
def apart():
    """Calls functions in a process of its own."""
    reader = Apart()
    yield reader
    reader.end()
