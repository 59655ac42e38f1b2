"""Redis, which is speed: keys, and the live tail of job events."""
