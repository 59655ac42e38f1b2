"""The calls of the contract: convert, call the domain, convert back."""
