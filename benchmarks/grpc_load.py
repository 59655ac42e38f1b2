"""A load generator in a process of its own: calls a unary method as fast as its server answers, and reports in JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time

import grpc.aio
import uvloop

from memoro.v1 import memory_service_pb2


def request(prefix: str, number: int) -> bytes:
    """A short text as a service would send it, under a request id of its own."""
    return memory_service_pb2.CreateMemoryRequest(
        request_id=f"{prefix}-{number}",
        user_id=f"user-{number % 100}",
        text=f"Met Anna at the harbour cafe on day {number}; she is looking for a second-hand cello for her daughter.",
    ).SerializeToString()


async def _load(endpoint: str, method: str, key: str, seconds: float, concurrency: int) -> None:
    prefix = os.urandom(6).hex()
    metadata = (("authorization", f"Bearer {key}"),)
    latencies: list[float] = []
    failures: dict[str, int] = {}
    end = time.perf_counter() + seconds

    async with grpc.aio.insecure_channel(endpoint) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)

        async def caller(number: int) -> None:
            while (start := time.perf_counter()) < end:
                try:
                    await call(request(prefix, number), metadata=metadata, timeout=10)
                except grpc.aio.AioRpcError as error:
                    failures[f"{error.code().name}: {error.details()}"] = (
                        failures.get(f"{error.code().name}: {error.details()}", 0) + 1
                    )
                else:
                    latencies.append(time.perf_counter() - start)
                number += concurrency

        started = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(concurrency)))
        elapsed = time.perf_counter() - started

    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    print(
        json.dumps(
            {
                "calls": len(latencies),
                "seconds": elapsed,
                "p50_ms": cuts[49] * 1e3,
                "p99_ms": cuts[98] * 1e3,
                "failures": failures,
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint")
    parser.add_argument("method")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    uvloop.run(_load(options.endpoint, options.method, os.environ["BENCH_KEY"], options.seconds, options.concurrency))
