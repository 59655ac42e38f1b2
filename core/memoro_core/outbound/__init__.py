"""HTTP to hosts that others name: requests that can't be led to where they should not go."""
