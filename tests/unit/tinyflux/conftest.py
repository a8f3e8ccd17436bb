"""Give the tests of tinyflux the model that ships."""

from __future__ import annotations

import pytest

from tinyflux import TinyFlux, weights_path


@pytest.fixture(scope="session")
def model() -> TinyFlux:
    """Load the base weights once; nothing changes them."""
    return TinyFlux.load(weights_path())
