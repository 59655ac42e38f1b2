"""Named SQL, kept in `sql/*.sql`: a line `-- name: what_it_is`, comments on what it does, and the statement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)$", re.MULTILINE)
_FRAGMENTS: Final = "fragments"


@cache
def load_queries(file: str) -> Mapping[str, str]:
    """The statements of `sql/<file>.sql` by name, with the fragments that they name in braces put in.

    Raises ValueError for a name that stands twice.
    """
    text = (files("memoro_core.postgres") / "sql" / f"{file}.sql").read_text("utf-8")
    if file != _FRAGMENTS:
        for fragment, columns in load_queries(_FRAGMENTS).items():
            text = text.replace(f"{{{fragment}}}", columns)
    parts = _NAME.split(text)[1:]
    names = parts[::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{file}.sql has a name twice")
    return MappingProxyType(dict(zip(names, (body.strip().rstrip(";") for body in parts[1::2]), strict=True)))
