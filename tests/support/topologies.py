"""Redis in every way that it can be set up: a server, a cluster of four nodes, a master that Sentinels look after."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from memoro_core.embedded.binaries import redis_program
from memoro_core.embedded.ports import LOOPBACK, free_port
from memoro_core.embedded.process import end, server_environment, spawn
from memoro_core.redis.keys import BACKLOG_STREAM
from memoro_core.redis_address import Topology
from tests.support.jobs import until
from tests.support.stacks import temporary_data_dir

PASSWORD = "a pass/word@:,?"
ENCODED = "a%20pass%2Fword%40%3A%2C%3F"
_SLOTS = 16_384
_NODE_TIMEOUT = 1000
"""Milliseconds after which a node that does not answer counts as gone."""


@dataclass
class Node:
    """One server process."""

    home: Path
    configuration: Sequence[str]
    port: int = field(default_factory=free_port)
    sentinel: bool = False
    process: Process | None = None

    async def start(self) -> None:
        """Starts it, again with the data it had, and waits until it answers."""
        self.home.mkdir(exist_ok=True)
        file = self.home / "redis.conf"
        if not file.exists():
            lines = [f"port {self.port}", f"bind {LOOPBACK}", f'dir "{self.home}"', 'save ""', *self.configuration]
            file.write_text("\n".join(lines) + "\n", "utf-8")
        with (self.home / "log").open("ab") as log:
            self.process = await spawn(
                [str(redis_program()), str(file), *(["--sentinel"] if self.sentinel else [])],
                mark=self.home,
                environment=server_environment(),
                output=log.fileno(),
                death_signal=signal.SIGKILL,
            )
        await until(self._answers, seconds=20)

    async def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        """Ends it, if it runs."""
        if self.process is not None:
            await end(self.process, ((signal.SIGTERM, 5.0),))

    async def command(self, *words: object) -> Any:
        """One command to this very node."""
        async with Redis(host=LOOPBACK, port=self.port, password=None if self.sentinel else PASSWORD) as client:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, (self.home / "log").read_text("utf-8")
        try:
            await self.command("PING")
        except (RedisError, OSError):
            return False
        return True


@dataclass
class Deployment:
    """A Redis that runs; `nodes` are those that hold data, first the one that holds the hints."""

    topology: Topology
    url: str
    nodes: list[Node]

    async def empty(self) -> None:
        """Nothing is left in it, nor in the way of the next test."""
        for node in self.nodes:
            if (await node.command("INFO", "replication"))["role"] == "master":
                await node.command("FLUSHALL")

    async def drop_connections(self) -> None:
        """Ends every client's connections."""
        for node in self.nodes:
            await node.command("CLIENT", "KILL", "TYPE", "normal")


def _server_lines() -> list[str]:
    return [f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"', "repl-diskless-sync-delay 0"]


@asynccontextmanager
async def open_server() -> AsyncIterator[Deployment]:
    """One server."""
    async with _nodes({"server": _server_lines()}) as (node,):
        yield Deployment(Topology.STANDALONE, f"redis://:{ENCODED}@{LOOPBACK}:{node.port}/3", [node])


def _different_free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


@asynccontextmanager
async def open_cluster() -> AsyncIterator[Deployment]:
    """Three masters that share the slots, and a replica of the one that holds the hints."""
    ports = _different_free_ports(4)
    lines = {
        f"node{number}": [
            *_server_lines(),
            "cluster-enabled yes",
            f"cluster-port {port}",
            f"cluster-node-timeout {_NODE_TIMEOUT}",
            "cluster-require-full-coverage no",
            "cluster-replica-validity-factor 0",
        ]
        for number, port in enumerate(ports)
    }
    async with _nodes(lines) as nodes:
        *masters, replica = nodes
        bounds = [_SLOTS * number // 3 for number in range(4)]
        for number, master in enumerate(masters):
            await master.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            await master.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node, bus in zip(nodes[1:], ports[1:], strict=True):
            await masters[0].command("CLUSTER", "MEET", LOOPBACK, node.port, bus)

        async def joined() -> bool:
            known = [await node.command("CLUSTER", "INFO") for node in nodes]
            return all(
                _info(one)["cluster_known_nodes"] == "4" and _info(one)["cluster_slots_assigned"] == str(_SLOTS)
                for one in known
            )

        await until(joined, seconds=20)
        slot = key_slot(BACKLOG_STREAM.encode())
        holder = next(node for node, last in zip(masters, bounds[1:], strict=True) if slot < last)
        await replica.command("CLUSTER", "REPLICATE", (await holder.command("CLUSTER", "MYID")).decode())

        async def whole() -> bool:
            states = [_info(await node.command("CLUSTER", "INFO"))["cluster_state"] for node in nodes]
            return set(states) == {"ok"} and await _is_synced(replica)

        await until(whole, seconds=20)
        masters.sort(key=lambda node: node is not holder)
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in masters)
        yield Deployment(Topology.CLUSTER, f"redis+cluster://:{ENCODED}@{hosts}", [*masters, replica])


@asynccontextmanager
async def open_sentinel() -> AsyncIterator[Deployment]:
    """A master, its replica, and three Sentinels."""
    async with AsyncExitStack() as stack:
        (master,) = await stack.enter_async_context(_nodes({"master": _server_lines()}))
        follows = [*_server_lines(), f"replicaof {LOOPBACK} {master.port}"]
        (replica,) = await stack.enter_async_context(_nodes({"replica": follows}))
        await until(lambda: _is_synced(replica), seconds=20)
        watches = [
            f"sentinel monitor memoro {LOOPBACK} {master.port} 2",
            f'sentinel auth-pass memoro "{PASSWORD}"',
            f"sentinel down-after-milliseconds memoro {_NODE_TIMEOUT}",
            "sentinel failover-timeout memoro 3000",
        ]
        names = {f"sentinel{number}": watches for number in range(3)}
        sentinels = await stack.enter_async_context(_nodes(names, sentinel=True))

        async def all_know_all() -> bool:
            known = [await node.command("SENTINEL", "MASTER", "memoro") for node in sentinels]
            return all((int(one[b"num-other-sentinels"]), int(one[b"num-slaves"])) == (2, 1) for one in known)

        await until(all_know_all, seconds=20)
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in sentinels)
        yield Deployment(Topology.SENTINEL, f"redis+sentinel://:{ENCODED}@{hosts}/memoro/3", [master, replica])


OPEN = {Topology.STANDALONE: open_server, Topology.CLUSTER: open_cluster, Topology.SENTINEL: open_sentinel}


@asynccontextmanager
async def _nodes(configurations: dict[str, list[str]], *, sentinel: bool = False) -> AsyncIterator[list[Node]]:
    with temporary_data_dir() as folder:
        nodes = [Node(folder / name, lines, sentinel=sentinel) for name, lines in configurations.items()]
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            yield nodes
        finally:
            await asyncio.gather(*(node.stop() for node in nodes))


async def _is_synced(replica: Node) -> bool:
    state = await replica.command("INFO", "replication")
    return state.get("master_link_status") == "up"  # type: ignore[no-any-return]


def _info(answer: bytes | dict[str, str]) -> dict[str, str]:
    if isinstance(answer, dict):
        return answer
    return dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
