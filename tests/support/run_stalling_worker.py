"""A worker whose event loop SIGUSR1 blocks, for as many seconds as STALL_SECONDS says; its threads go on."""

from __future__ import annotations

import os
import signal
import sys
import time

from memoro_worker.__main__ import main

if __name__ == "__main__":
    # The handler runs in the main thread, between two steps of whatever the loop is doing there.
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(float(os.environ["STALL_SECONDS"])))
    sys.exit(main([]))
