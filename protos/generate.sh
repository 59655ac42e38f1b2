#!/usr/bin/env bash
# Writes the generated Python of protos/ into client/: run by `make proto`, with the toolchain of protos/requirements.txt.
# Usage: protos/generate.sh VENV
set -euo pipefail
export LC_ALL=C # one order of files everywhere

venv=$(cd "$1" && pwd)
cd "$(dirname "$0")"
out=../client
messages=(buf/validate/*.proto memoro/v1/*.proto)
services=(memoro/v1/*_service.proto)

# What was generated from a proto that is gone must go too.
find "$out/memoro/v1" "$out/buf" \( -name '*_pb2*.py' -o -name '*_pb2*.pyi' \) -delete

protoc() { PATH="$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc -I . "$@"; }
protoc --python_out="$out" --mypy_out=quiet:"$out" "${messages[@]}"
# Only files with a service: the plugin writes an empty module for any other.
protoc --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" "${services[@]}"
