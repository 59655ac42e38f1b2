"""`python -m benchmarks` runs all benchmarks, `python -m benchmarks NAME …` one of them, with its own options."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

NAMES: Final = ("add", "fair", "hold", "lifecycle", "limits", "recall", "recover", "watch")


def main(arguments: list[str]) -> int:
    """Runs each benchmark in a process of its own; 1 when one of them could not be run, whatever it measured."""
    names, options = (arguments[:1], arguments[1:]) if arguments else (list(NAMES), [])
    if unknown := [name for name in names if name not in NAMES]:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    codes = [
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode for name in names
    ]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
