"""`python -m memoro.cli`: the command `memoro`."""

from __future__ import annotations

from memoro.cli import main

if __name__ == "__main__":
    main()
