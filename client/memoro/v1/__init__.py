"""Generated from `protos/memoro/v1` by `make proto`: messages in `*_pb2`, services in `*_service_pb2_grpc`."""
