"""Follows all jobs of the tenant and keeps its place in a file, so that it goes on there when it is started again.

MEMORO_ENDPOINT and MEMORO_API_KEY say where and who; `memoro dev` prints both. Usage: follow_jobs.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from memoro import Client, MemoroError


def keep(place: Path, token: str) -> None:
    """Replaces the file as a whole: after a crash it holds the old place or the new one."""
    fresh = place.with_suffix(".new")
    fresh.write_text(token)
    fresh.replace(place)


def main(place: Path) -> None:
    token = place.read_text() if place.exists() else ""
    with Client.from_env() as client, client.jobs.watch_all(resume_token=token) as watch:
        for update in watch:
            if update.after_gap:
                print("away for too long: what has ended in the meantime is not told", flush=True)
            if update.snapshot or update.state.ended or not update.stage:
                waits = f", runs at {update.run_time}" if update.error and update.run_time else ""
                print(f"{update.job_id} {update.state.lower()}{waits}", flush=True)
            # Not before the update has been dealt with: at the worst it comes again.
            keep(place, watch.resume_token)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        pass
    except MemoroError as error:
        raise SystemExit(f"error: {error}") from error
