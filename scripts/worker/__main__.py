"""Entry of the worker, run as a folder: `python scripts/worker --settings worker.json`."""

from __future__ import annotations

import sys
import time

STARTED = time.time()


def _put_repository_on_path() -> None:
    """Make `scripts.worker` importable, and keep this folder's modules from hiding others."""
    folder = __file__.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    sys.path.insert(0, folder.rpartition("/")[0].rpartition("/")[0])


if __name__ == "__main__":
    _put_repository_on_path()
    # Python does not run a folder's __main__ again in the processes that multiprocessing spawns.
    # Without a spec it takes this file for a plain script and does, as __mp_main__, see below.
    __spec__ = None
    from scripts.worker.run import main

    main(sys.argv[1:], started=STARTED)

if __name__ == "__mp_main__":
    _put_repository_on_path()
    from scripts.worker.system import die_with_parent

    # vLLM leaves its engine processes running, and their GPU taken, when the driver is killed.
    die_with_parent()
