"""What operators see of a process: health and metrics over HTTP."""
