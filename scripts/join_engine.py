"""Start the part of an engine that runs on this node; another node leads.

Started by srun, once on each further node of a job (see scripts/llm_batch/generate/nodes.py). Ends
when the leader's supervisor does, and takes all its processes with it. The worker's output goes to
`<engine start>.<node>.log`, the samples of this node's GPUs to `<engine start>.<node>.gpus.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import platform
import select
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import read_json, write_json_atomic
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.generate.company import engine_places
from scripts.llm_batch.generate.gpus import Lease, scheduled_lease
from scripts.llm_batch.generate.nodes import route_to
from scripts.llm_batch.generate.process import WorkerProcess, adopt_orphans
from scripts.llm_batch.generate.settings import inherited_variables
from scripts.llm_batch.gpus.present import scheduled_names
from scripts.llm_batch.gpus.telemetry import watched

POLL_S = 0.25
CONNECT_S = 60.0
GRACE_S = 5.0

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, type=Path, help="what the leader has written")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run this node's part of an engine to its end; its exit code, 0 if the leader ended first."""
    spec = read_json(build_parser().parse_args(argv).spec)
    adopt_orphans()
    # SLURM signals all nodes at once; the leader may need this one for the step in progress.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: log.info("asked to stop; the leader decides"))
    rank = int(os.environ.get("SLURM_PROCID", 0)) + 1
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    host, port = spec["leash"]
    try:
        leash = socket.create_connection((host, port), CONNECT_S)
    except OSError as error:
        raise WorkflowError(
            f"{node}: the engine's first node cannot be reached at {host}:{port} ({error}); nodes "
            "must reach each other on any port; VLLM_HOST_IP says at which address"
        ) from error
    with leash:
        return join(spec, rank, node, leash)


def join(spec: Mapping[str, Any], rank: int, node: str, leash: socket.socket) -> int:
    """Run the worker of this node until it ends or `leash` is cut."""
    lease = own_gpus(spec["gpus"])
    stem = Path(spec["stem"])
    folder = stem.parent / f"node{rank}"
    with (
        engine_places(folder, os.environ) as places,
        tempfile.TemporaryDirectory(prefix="llmb-join-") as scratch,
        watched(lease.source(), lease.uuids, stem.with_name(f"{stem.name}.{node}.gpus.jsonl")),
    ):
        settings = Path(scratch) / "settings.json"
        write_json_atomic(settings, worker_settings(spec["worker"], rank, Path(scratch)))
        environment = {
            **inherited_variables(os.environ, spec["programs"]),
            **spec["variables"],
            **lease.environment,
            **places,
            "VLLM_HOST_IP": route_to(spec["leash"][0]),
        }
        output = stem.with_name(f"{stem.name}.{node}.log")
        log.info("%s: node %d of an engine, its log is %s", node, rank, output)
        process = WorkerProcess(Path(spec["interpreter"]), settings, environment, output)
        try:
            return follow(process, leash, node)
        finally:
            process.end()


def follow(process: WorkerProcess, leash: socket.socket, node: str) -> int:
    """Return the worker's exit code, 0 when the leader's supervisor has let go of this node.

    Nothing is ever sent over `leash`: when it can be read, it has ended.
    """
    while (code := process.wait(POLL_S)) is None:
        if select.select([leash], [], [], 0)[0]:
            return 0
    # When the leader ends, or dies, so does this worker; the leader knows better why.
    if select.select([leash], [], [], GRACE_S)[0]:
        return 0
    log.warning("%s: the engine's process here ended with %d", node, code)
    # srun takes 0 for an end in peace, and lets the other nodes be.
    return code % 256 or 1


def own_gpus(count: int) -> Lease:
    """Return the GPUs that SLURM gave this step."""
    if not count:
        return Lease({}, ())
    return scheduled_lease(scheduled_names(os.environ) or [], count, os.environ)


def worker_settings(leader: Mapping[str, Any], rank: int, folder: Path) -> dict[str, Any]:
    """Return the settings of this node's worker: the leader's, with a rank and files of its own."""
    files = {name: str(folder / name) for name in ("journal", "progress", "status", "facts")}
    arguments = {**leader["args"], "node_rank": rank}
    return {**leader, **files, "args": arguments, "requests": [], "total": 0}


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        run_cli(main)
