"""Memories: adding, reading, searching them, and the pipeline that enriches them."""
