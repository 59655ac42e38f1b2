"""Redis, where speed lives: hints for workers, the live tail of events. All of it may be lost at any moment."""
