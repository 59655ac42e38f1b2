"""Reads the vectors out of an answer, trusting nothing about it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from memoro_core.errors import ProviderError
from memoro_core.llm.model import Vector
from memoro_core.llm.openai.failures import invalid_response


def read_vectors(answer: dict[str, Any], *, count: int, dimensions: int) -> list[Vector | ProviderError]:
    """For each of `count` inputs, its vector at unit length or what is wrong with it.

    Vectors come as lists of numbers or as base64 of little-endian float32. Raises ProviderError when the answer as a
    whole can't be matched to the inputs.
    """
    items = answer.get("data")
    if not isinstance(items, list) or len(items) > count:
        raise invalid_response("it does not have one embedding per input")
    found: dict[int, Vector | ProviderError] = {}
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise invalid_response("an embedding is not an object")
        index = item.get("index", position if len(items) == count else None)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count or index in found:
            raise invalid_response("its embeddings are not numbered like the inputs")
        found[index] = _read_vector(item.get("embedding"), dimensions)
    missing = invalid_response("it does not have one embedding per input")
    return [found.get(index, missing) for index in range(count)]


def read_tokens(answer: dict[str, Any], name: str) -> int | None:
    """A count of the answer's `usage`; None when the provider does not tell."""
    usage = answer.get("usage")
    tokens = usage.get(name) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None


def share_tokens(tokens: int, sizes: Sequence[int]) -> list[int]:
    """Divides `tokens` in proportion to `sizes`; the shares add up to `tokens`."""
    total = sum(sizes)
    shares = []
    seen = given = 0
    for size in sizes:
        seen += size
        upto = tokens * seen // total if total else 0
        shares.append(upto - given)
        given = upto
    if shares:
        shares[-1] += tokens - given
    return shares


def _read_vector(raw: object, dimensions: int) -> Vector | ProviderError:
    try:
        if isinstance(raw, str):
            values = np.frombuffer(base64.b64decode(raw, validate=True), dtype="<f4").astype(np.float32)
        elif isinstance(raw, list) and all(type(value) in {float, int} for value in raw):
            values = np.asarray(raw, dtype=np.float64).astype(np.float32)
        else:
            return invalid_response("an embedding is not a list of numbers")
    except (binascii.Error, ValueError, OverflowError):
        return invalid_response("an embedding is not a list of numbers")
    if len(values) != dimensions:
        return invalid_response(f"an embedding has {len(values)} dimensions, not {dimensions}")
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        return invalid_response("an embedding has no finite length")
    return (values / np.float32(length)).astype(np.float32)
