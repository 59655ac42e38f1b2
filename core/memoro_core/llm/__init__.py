"""Models: what turns a text into a vector, and what finds the facts in it."""
