"""What the packages declare, against what their code imports and what the lock pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVICE: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SDK: dict[str, Any] = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
OURS = {"benchmarks", "buf", "memoro", "memoro_core", "memoro_server", "memoro_worker", "tests"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {canonical(match[0]) for match in found if match} - {"memoro-service"}


def extras(*wanted: str) -> set[str]:
    optional = SERVICE["optional-dependencies"]
    chosen = (optional[extra] for extra in wanted or optional)
    return names([*SERVICE["dependencies"], *(requirement for extra in chosen for requirement in extra)])


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """The packages that files under `folder` import from elsewhere, by their first name."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in modules:
                top = module.partition(".")[0]
                if top not in OURS and top not in sys.stdlib_module_names:
                    yield top, path


SERVICE_EXTRAS = extras("core", "server", "worker", "local", "openai", "embedded")


@pytest.mark.parametrize(
    ("folder", "declared"),
    [
        ("client", extras("cli")),
        ("core", SERVICE_EXTRAS | extras("cli")),
        ("server", SERVICE_EXTRAS | extras("cli")),
        ("worker", SERVICE_EXTRAS | extras("cli")),
        ("tests", extras()),
        ("benchmarks", extras()),
    ],
)
def test_every_import_is_declared(folder: str, declared: set[str]) -> None:
    providers = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {top}"
        for top, path in imported(ROOT / folder)
        if not declared & {canonical(name) for name in providers.get(top, [top])}
    }
    assert not undeclared


def test_the_lock_pins_all_that_is_declared_and_names_no_address() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([\w.-]+)==[\w.]+( ; .+)?", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    assert extras() <= {canonical(pin[1]) for pin in pins if pin}


def test_the_sdk_published_alone_is_the_sdk_of_the_service() -> None:
    assert SDK["dependencies"] == SERVICE["dependencies"]
    assert SDK["optional-dependencies"] == {"cli": SERVICE["optional-dependencies"]["cli"]}
    assert SDK["version"] == SERVICE["version"]
    assert SDK["requires-python"] == SERVICE["requires-python"]
    assert SDK["scripts"] == SERVICE["scripts"]


def test_generated_code_is_not_newer_than_the_oldest_runtime_declared() -> None:
    [floor] = [one for one in SERVICE["dependencies"] if one.startswith("protobuf")]
    generated = sorted((ROOT / "client").rglob("*_pb2.py"))
    versions = {
        re.findall(r"^# Protobuf Python Version: (\S+)$", path.read_text(), re.MULTILINE)[0] for path in generated
    }
    assert versions == {re.findall(r">=([\d.]+)", floor)[0]}

    [grpc] = [one for one in SERVICE["dependencies"] if one.startswith("grpcio")]
    stubs = sorted((ROOT / "client").rglob("*_pb2_grpc.py"))
    wanted = {re.findall(r"^GRPC_GENERATED_VERSION = '(\S+)'$", path.read_text(), re.MULTILINE)[0] for path in stubs}
    assert wanted == {re.findall(r">=([\d.]+)", grpc)[0] + ".0"}
