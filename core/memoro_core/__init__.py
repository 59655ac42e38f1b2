"""What server and worker share: the domain and its adapters. Knows neither gRPC nor Taskiq tasks."""
