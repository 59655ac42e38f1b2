"""Finds the handler of each call."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memoro_server.call import Call, Context, Handler, Method
from memoro_server.interceptors import Interceptor, chain
from memoro_server.policy import POLICIES, Policy
from memoro_server.status import method_unknown

RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Servicers: TypeAlias = Mapping[ServiceDescriptor, Sequence[object]]
"""Each service with the objects that have its methods, each method on just one of them."""


class Router(grpc.GenericRpcHandler):
    """Serves every method of the given services behind the interceptors; any other is METHOD_UNKNOWN.

    The chain of each method is built once, here, rather than by gRPC for each call; and a single generic handler costs
    less than registered methods, for each of which the server keeps a waiting call of its own. Raises ValueError for a
    method without a policy or without exactly one servicer.
    """

    def __init__(self, servicers: Servicers, interceptors: Sequence[Interceptor]) -> None:
        self._handlers = dict(_handlers(servicers, interceptors))
        self._unknown = chain(_UNKNOWN, interceptors, _refuse)

    @property
    def methods(self) -> Iterable[str]:
        """The paths of all methods that are served."""
        return self._handlers.keys()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler | None:
        path: Any = handler_call_details.method
        return self._handlers.get(path) or _unknown_handler(path, self._unknown)


_UNKNOWN: Final = Method("unknown", Policy(None, None, 0, False, 30.0), None)


def _unknown_handler(path: str, refuse: Handler) -> RpcHandler:
    async def handle(_requests: Any, context: Context) -> None:
        await refuse(path, Call(_UNKNOWN, context))

    # The shape that fits a call of any shape: it reads nothing before it answers.
    return grpc.stream_stream_rpc_method_handler(handle)


async def _refuse(path: str, _call: Call) -> None:
    raise method_unknown(path)


def _handlers(servicers: Servicers, interceptors: Sequence[Interceptor]) -> Iterable[tuple[str, RpcHandler]]:
    for service, objects in servicers.items():
        for descriptor in service.methods:
            path = f"/{service.full_name}/{descriptor.name}"
            policy = POLICIES.get(path)
            if policy is None:
                raise ValueError(f"{path} has no policy")
            if policy.streaming != descriptor.server_streaming:
                raise ValueError(f"the policy of {path} is wrong about streaming")
            request_class = GetMessageClass(descriptor.input_type)
            method = Method(path, policy, None if descriptor.client_streaming else request_class)
            implementation = _implementation(descriptor, objects)
            innermost = _stream(implementation) if policy.streaming else _unary(implementation)
            handler = chain(method, interceptors, innermost)
            yield path, _rpc_handler(method, descriptor, request_class, handler)


def _implementation(descriptor: MethodDescriptor, objects: Sequence[object]) -> Callable[..., Any]:
    found: list[Callable[..., Any]] = [getattr(it, descriptor.name) for it in objects if hasattr(it, descriptor.name)]
    if len(found) != 1:
        raise ValueError(f"{descriptor.full_name} has {len(found)} servicers instead of one")
    right = inspect.isasyncgenfunction if descriptor.server_streaming else inspect.iscoroutinefunction
    if not right(found[0]):
        raise ValueError(f"{descriptor.full_name} is not served by an async function of its shape")
    return found[0]


def _unary(implementation: Callable[..., Any]) -> Handler:
    async def answer(request: Any, call: Call) -> bytes:
        response: Message = await implementation(request, call)
        # Here rather than in gRPC, so that a failure to serialise passes the errors interceptor too.
        return response.SerializeToString()

    return answer


def _stream(implementation: Callable[..., Any]) -> Handler:
    async def stream(request: Any, call: Call) -> None:
        # Driven from this one task, and closed in it: left to gRPC, the generator of a caller who goes away is finished
        # later and elsewhere, where its timeouts and context variables no longer hold.
        responses: AsyncIterator[Message] = implementation(request, call)
        async with aclosing(responses):  # type: ignore[type-var]
            async for response in responses:
                await call.context.write(response.SerializeToString())

    return stream


def _rpc_handler(
    method: Method, descriptor: MethodDescriptor, request_class: type[Message], handler: Handler
) -> RpcHandler:
    async def handle(requests: Any, context: Context) -> bytes | None:
        call = Call(method, context)
        answer = await handler(requests if descriptor.client_streaming else None, call)
        # Once, with all there is to tell: each time costs as much as deciding about a limit.
        context.set_trailing_metadata(call.trailers)
        return answer

    # Of the shape that streams requests, also where there is one: gRPC would else read all of it before anybody could
    # ask who calls, and a stranger who stalls within a large message would hold that much memory. It costs the same.
    deserialize = request_class.FromString if descriptor.client_streaming else None
    if descriptor.server_streaming:
        return grpc.stream_stream_rpc_method_handler(handle, deserialize)
    return grpc.stream_unary_rpc_method_handler(handle, deserialize)
