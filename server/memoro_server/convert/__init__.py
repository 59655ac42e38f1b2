"""The contract's messages to and from the domain's objects."""
