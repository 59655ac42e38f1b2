"""What operators are told, each once."""
