"""One deployment, as `memoro dev` starts it, for all tests that only use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dev import Dev, running_dev


@pytest.fixture(scope="session")
def dev() -> Iterator[Dev]:
    """A running deployment. Not for killing."""
    with running_dev() as running:
        yield running
