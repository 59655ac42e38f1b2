"""Named SQL: each statement is used, each use is named, each has its own name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import memoro_core.postgres
from memoro_core.postgres.queries import load_queries

FOLDER = Path(memoro_core.postgres.__file__).parent
FILES = sorted(path.stem for path in (FOLDER / "sql").glob("*.sql") if path.stem != "fragments")


def uses() -> dict[str, set[str]]:
    """Which names each file's statements are asked for by, over all modules that load it."""
    found: dict[str, set[str]] = {}
    for module in FOLDER.glob("*.py"):
        text = module.read_text("utf-8")
        for variable, file in re.findall(r'^(_[A-Z_]+)(?:: Final)? = load_queries\("(\w+)"\)', text, re.MULTILINE):
            found.setdefault(file, set()).update(re.findall(rf'{variable}\["(\w+)"\]', text))
    return found


def test_there_is_sql() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES)
def test_every_statement_is_used_and_every_use_is_named(file: str) -> None:
    assert uses().get(file, set()) == set(load_queries(file))


@pytest.mark.parametrize("file", FILES)
def test_statements_name_their_columns(file: str) -> None:
    for name, statement in load_queries(file).items():
        assert not re.search(r"(SELECT|RETURNING)\s+\*\s+FROM\s+(memories|jobs|tenants|api_keys)\b", statement), name


@pytest.mark.parametrize("fragment", load_queries("fragments"))
def test_every_fragment_is_used_and_put_in(fragment: str) -> None:
    place = f"{{{fragment}}}"
    assert any(place in path.read_text("utf-8") for path in (FOLDER / "sql").glob("*.sql"))
    assert not any(place in statement for file in FILES for statement in load_queries(file).values())
