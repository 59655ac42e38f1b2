"""The gRPC server: calls in, domain calls out."""
