"""The reasons of the domain and those of the contract are the same."""

from __future__ import annotations

from pathlib import Path

from memoro.v1 import error_reason_pb2
from memoro_core.errors import Reason

PREFIX = "ERROR_REASON_"


def test_each_reason_of_the_domain_is_one_of_the_contract_and_the_other_way_round() -> None:
    contract = {value.name.removeprefix(PREFIX) for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values} - {
        "UNSPECIFIED"
    }
    assert contract == set(Reason)


def test_each_reason_has_an_example_in_its_comment() -> None:
    proto = (Path(__file__).parents[2] / "protos/memoro/v1/error_reason.proto").read_text("utf-8")
    for name in Reason:
        comment = proto.partition(f"  {PREFIX}{name} =")[0].rsplit("= ", 1)[-1]
        assert "Example:" in comment, name
