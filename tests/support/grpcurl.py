"""A generic client over reflection, called as grpcurl is: it knows no proto but what the server tells it.

grpcurl -plaintext [-v] [-H 'name: value'] [-d JSON] ENDPOINT list | describe SYMBOL | SERVICE/METHOD
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DEADLINE = 60.0
# So that details can be told: their types must be known.
assert error_details_pb2.DESCRIPTOR


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="grpcurl", prefix_chars="-")
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-v", dest="verbose", action="store_true")
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
                return _call(channel, pool, path, options.data, metadata, verbose=options.verbose)
            case _:
                parser.error("what to do?")
    return 0


def _call(channel: grpc.Channel, pool: DescriptorPool, path: str, data: str, metadata: Any, *, verbose: bool) -> int:
    service, name = path.split("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    request = json_format.Parse(data, GetMessageClass(method.input_type)(), descriptor_pool=pool)
    start: Any = channel.unary_stream(
        f"/{path}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    # Of one answer or of many, as the wire does not tell.
    call = start(request, metadata=metadata, timeout=DEADLINE)
    failed = None
    try:
        for response in call:
            if verbose:
                print("\nResponse contents:")
            print(json_format.MessageToJson(response, descriptor_pool=pool))
    except grpc.RpcError as error:
        failed = error
    if verbose:
        print("\nResponse trailers received:")
        print(*(f"{key}: {value}" for key, value in call.trailing_metadata() if isinstance(value, str)), sep="\n")
    return 0 if failed is None else _tell(failed)


def _tell(failed: Any) -> int:
    code = failed.code()
    name = code.name.title().replace("_", "")
    print(f"ERROR:\n  Code: {name}\n  Message: {failed.details()}", file=sys.stderr)
    for key, value in failed.trailing_metadata():
        if key == "grpc-status-details-bin":
            print("  Details:", file=sys.stderr)
            for number, detail in enumerate(status_pb2.Status.FromString(value).details, 1):
                text = json_format.MessageToJson(detail, preserving_proto_field_name=True, indent=None)
                print(f"  {number})\t{text}", file=sys.stderr)
    return 64 + int(code.value[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
