"""Fixture of the process in which hostile files are read."""

import pytest

from hostile.outcome import Apart


@pytest.fixture(scope="session")
def apart():
    """Caller of functions in a separate process, with limits on time and memory; see `Apart`."""
    reader = Apart()
    yield reader
    reader.end()
