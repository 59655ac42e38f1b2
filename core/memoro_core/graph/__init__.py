"""The graph: entities, the facts between them, and walks along these."""
