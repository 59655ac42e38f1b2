"""The log of what operators did or tried, and of what was done to credentials."""
