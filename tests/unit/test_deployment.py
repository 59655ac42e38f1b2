"""The image and the compose file, as far as they can be tried without a container."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from memoro_core.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")


def dockerfile() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def setting_names() -> set[str]:
    return {f"MEMORO_{name.upper()}" for name in Settings.model_fields} | {"OPENAI_API_KEY"}


def test_it_has_the_services_of_a_deployment() -> None:
    assert set(SERVICES) == {"postgres", "valkey", "migrate", "server", "worker"}
    assert set(OURS) == {"migrate", "server", "worker"}


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_one_that_memoro_has(name: str) -> None:
    command = [Path(sys.executable).with_name("memoro"), *OURS[name]["command"], "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Usage" in ran.stdout


@pytest.mark.parametrize("name", OURS)
def test_its_variables_are_settings_that_exist(name: str) -> None:
    unknown = set(OURS[name]["environment"]) - setting_names()
    assert not unknown


def test_only_the_migration_has_the_owners_password() -> None:
    holders = {name for name, service in SERVICES.items() if "POSTGRES_PASSWORD" in str(service.get("environment"))}
    assert holders == {"postgres", "migrate"}


@pytest.mark.parametrize("name", ["server", "worker"])
def test_services_start_on_a_migrated_database(name: str) -> None:
    assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"migrate"}))
def test_what_runs_on_is_watched_and_restarted(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize(("name", "port"), [("server", 8081), ("worker", 8082)])
def test_health_is_asked_where_operations_listen(name: str, port: int) -> None:
    default = Settings.model_fields[f"{name}_ops_port"].default
    assert default == port
    assert f"http://127.0.0.1:{port}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_with_the_hosts_powers(name: str) -> None:
    service = SERVICES[name]
    assert not service.keys() & {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices", "userns_mode"}
    sources = [str(volume).split(":")[0] for volume in service.get("volumes", [])]
    assert set(sources) <= set(COMPOSE["volumes"]), "only named volumes, no folder or socket of the host"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_as_little_as_possible(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "user" not in service, "the image says who it runs as"


def test_only_grpc_is_published_and_by_default_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"server": ["${MEMORO_PUBLISH:-127.0.0.1:50051}:50051"]}


def test_images_are_of_a_stated_version() -> None:
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    images += [rest.split()[0] for word, rest in dockerfile() if word == "FROM"]
    assert all(re.search(r":[\w.-]*\d", image) for image in images), images


def test_passwords_are_asked_for_and_never_given() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = {match["name"]: match["rest"] for match in VARIABLE.finditer(text)}
    passwords = {name for name in used if name.endswith("PASSWORD")}
    assert passwords == {"POSTGRES_PASSWORD", "MEMORO_SERVICE_PASSWORD", "VALKEY_PASSWORD"}
    assert all(used[name].startswith(":?") for name in passwords)
    assert not re.search(r"://[^\s$]*:[^\s$/@]+@", text), "a password stands in a URL"

    example = (ROOT / ".env.example").read_text()
    offered = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert passwords <= offered.keys()
    assert set(used) | {"OPENAI_API_KEY"} == offered.keys()
    assert not any(offered[name] for name in [*passwords, "OPENAI_API_KEY"])


def test_the_image_runs_memoro_as_nobody_in_particular_and_holds_no_secret() -> None:
    instructions = dockerfile()
    last = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    final = instructions[last:]
    assert ("ENTRYPOINT", '["memoro"]') in final
    [user] = [rest for word, rest in final if word == "USER"]
    assert int(user) > 0
    assert not re.search(r"(?i)password|secret|token|api_key", str(instructions))


def test_the_build_is_given_what_it_copies() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for word, rest in dockerfile() if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
