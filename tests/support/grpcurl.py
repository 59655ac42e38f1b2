"""A generic client over reflection, called as grpcurl is: it knows no proto but what the server tells it.

grpcurl -plaintext [-H 'name: value'] [-d JSON] ENDPOINT list | describe SYMBOL | SERVICE/METHOD
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DEADLINE = 60.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="grpcurl", prefix_chars="-")
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("endpoint")
    parser.add_argument("words", nargs="+")
    options = parser.parse_args(arguments)
    metadata = [tuple(part.strip() for part in header.split(":", 1)) for header in options.headers]
    with grpc.insecure_channel(options.endpoint) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        match options.words:
            case ["list"]:
                print(*sorted(database.get_services()), sep="\n")
            case ["describe", symbol]:
                service = pool.FindServiceByName(symbol)
                print(
                    *(f"rpc {method.name} ( .{method.input_type.full_name} )" for method in service.methods), sep="\n"
                )
            case [path]:
                return _call(channel, pool, path, options.data, metadata)
            case _:
                parser.error("what to do?")
    return 0


def _call(channel: grpc.Channel, pool: DescriptorPool, path: str, data: str, metadata: Any) -> int:
    service, name = path.split("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    request = json_format.Parse(data, GetMessageClass(method.input_type)(), descriptor_pool=pool)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    call: Any = make(
        f"/{path}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    try:
        answer = call(request, metadata=metadata, timeout=DEADLINE)
        for response in answer if method.server_streaming else [answer]:
            print(json_format.MessageToJson(response, descriptor_pool=pool))
    except grpc.RpcError as error:
        failed: Any = error
        print(f"ERROR:\n  Code: {failed.code().name}\n  Message: {failed.details()}", file=sys.stderr)
        return 64 + int(failed.code().value[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
