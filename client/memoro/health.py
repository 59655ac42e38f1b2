"""The standard health check, `grpc.health.v1.Health`, without a package of its own."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from memoro.enums import Health
from memoro.methods import Method
from memoro.transport import Transport


def _check() -> Method[Any, Any]:
    # In a pool of its own, so that it never meets the definition of another package.
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name="HealthCheckRequest").field.add(
        name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL
    )
    # On the wire an enumeration is an int32.
    file.message_type.add(name="HealthCheckResponse").field.add(
        name="status", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}"))
        for name in ("HealthCheckRequest", "HealthCheckResponse")
    )
    return Method("/grpc.health.v1.Health/Check", request, response, deadline=5.0, retry=False)


_CHECK = _check()
_STATUSES = {1: Health.SERVING, 2: Health.NOT_SERVING}


async def check_health(transport: Transport, service: str, timeout: float | None) -> Health:
    """What the server says of a service, or of itself for the empty name. Raises NotFound for an unknown service."""
    response = await transport.unary(_CHECK, _CHECK.request(service=service), timeout)
    return _STATUSES.get(response.status, Health.UNKNOWN)
