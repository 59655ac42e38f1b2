"""How much a caller may do at once."""
