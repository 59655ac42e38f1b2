"""What the server's own tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.interception import serving


@pytest.fixture
def serve() -> Callable[..., Any]:
    """`async with serve(unary, stream) as scripted`: a server on a free port that gives these answers."""
    return serving
