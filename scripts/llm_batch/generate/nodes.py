"""The other nodes of an engine that is spread over several: their processes, started by srun.

The supervisor's node leads (rank 0). On each other node of the SLURM job one task runs
`scripts.join_engine`, which starts a worker there with the same arguments and its own rank; from
then on vLLM talks to it without us. A task lives as long as a connection to the supervisor (the
leash): the kernel closes it when the supervisor ends, however that happens. srun alone would not
do: after SIGKILL its tasks run on, with their GPUs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import write_json_atomic
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.company import BLOCK_PORTS
from scripts.llm_batch.generate.settings import EngineSpec, fixed_variables, program_folders
from scripts.llm_batch.slurm import STEP_CPUS, step_environment, step_words

END_S = 10.0
"""srun returns within a second once its tasks have ended."""

Others = Callable[[], "int | None"]
"""Tells how the first process on another node ended; None while all of them run."""

log = logging.getLogger(__name__)


class Nodes:
    """Where an engine's nodes meet: `address` and `port` are the leader's; `others` follow it."""

    def __init__(self, spec: EngineSpec, gpus: int, variables: Mapping[str, str]) -> None:
        """`gpus` are those on each node; `variables` are the leader's own places."""
        self.others = spec.nodes - 1
        self._spec = spec
        self._gpus = gpus
        self.address = ""
        if not self.others:
            return
        if not os.environ.get("SLURM_JOB_ID"):
            raise WorkflowError(
                f"tuning.nodes: {spec.nodes} machines are needed; SLURM gives them: "
                "snakemake --profile profiles/slurm"
            )
        self.address = own_address(os.environ)
        first = variables.get("VLLM_PORT")
        # The last of a block: vLLM counts up from its first.
        self._port = int(first) + BLOCK_PORTS - 1 if first else None

    def variables(self) -> dict[str, str]:
        """Return what the leader's worker needs in its environment."""
        return {"VLLM_HOST_IP": self.address} if self.others else {}

    def arguments(self) -> dict[str, Any]:
        """Return the engine arguments by which the nodes find each other; empty for one node."""
        if not self.others:
            return {}
        return {
            "nnodes": self.others + 1,
            "node_rank": 0,
            "master_addr": self.address,
            "master_port": free_port(self.address, self._port),
            "distributed_executor_backend": "mp",
        }

    @contextmanager
    def joined(
        self, settings: Mapping[str, Any], stem: Path, cache: Mapping[str, str]
    ) -> Iterator[Others]:
        """Run the other nodes' processes during the block; yields how to ask for one that ended.

        `settings` are the leader's worker's, `stem` is where the files of this start lie, `cache`
        are the variables of the compile cache.
        """
        if not self.others:
            yield lambda: None
            return
        with socket.create_server((self.address, 0), backlog=self.others + 1) as leash:
            path = stem.parent / "join.json"
            spec = {
                "interpreter": str(self._spec.interpreter),
                "programs": program_folders(self._spec),
                "variables": {**fixed_variables(self._spec), **cache},
                "gpus": self._gpus,
                "stem": str(stem),
                "leash": [self.address, leash.getsockname()[1]],
                "worker": dict(settings),
            }
            write_json_atomic(path, spec)
            process = start_tasks(self.others, self._gpus, path)
            try:
                yield process.poll
            finally:
                # Accepted or not, all connections end with it.
                leash.close()
                end_tasks(process)


def start_tasks(count: int, gpus: int, spec: Path) -> subprocess.Popen[bytes]:
    """Start one task on each of `count` nodes of this job other than ours."""
    threads = int(os.environ.get(STEP_CPUS) or len(os.sched_getaffinity(0)))
    words = step_words(count, threads, gpus)
    ours = os.environ.get("SLURMD_NODENAME") or platform.node()
    program = [sys.executable, "-m", "scripts.join_engine", "--spec", str(spec)]
    command = [*words, f"--exclude={ours}", "--input=none", "--kill-on-bad-exit=1", *program]
    log.info("starting the engine's processes on %d other nodes", count)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=step_environment(os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise WorkflowError(f"srun cannot be started ({error.strerror})") from error


def end_tasks(process: subprocess.Popen[bytes]) -> None:
    """Wait for tasks whose leash was cut; what does not end by itself is ended by SLURM."""
    for number in (None, *("terminate", "kill")):
        if number is not None:
            getattr(process, number)()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            return


def own_address(environ: Mapping[str, str]) -> str:
    """Return the address under which other nodes reach this one: VLLM_HOST_IP, if it is set.

    Else that of the host's name; where the name stands for a loopback address (Debian's
    /etc/hosts), that of the interface by which one leaves this machine.
    """
    if given := environ.get("VLLM_HOST_IP"):
        return given
    with contextlib.suppress(OSError):
        found = socket.gethostbyname(socket.gethostname())
        if not found.startswith("127."):
            return found
    with contextlib.suppress(OSError):
        return route_to("192.0.2.1")
    return "127.0.0.1"


def route_to(address: str) -> str:
    """Return the address of the interface that leads to `address`; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def free_port(address: str, wanted: int | None) -> int:
    """Return `wanted` if it is free, else any port that is."""
    for port in (wanted, 0):
        if port is not None:
            with contextlib.suppress(OSError), socket.create_server((address, port)) as server:
                return int(server.getsockname()[1])
    raise WorkflowError(f"{address}: no port is free there; is it an address of this machine?")
