"""A real SLURM cluster on this machine: two nodes, two GPUs each, for tests and for trying out.

    python -m tests.slurm.cluster start FOLDER    prints what leads SLURM's programs to it
    python -m tests.slurm.cluster stop FOLDER

Everything is real but the hardware: munged, slurmctld and two slurmd run on this host, on ports
and in a folder of their own, and the GPUs are device files with nothing behind them. SLURM hands
them out as it does real ones. It needs root, and Debian's packages slurm-wlm and munge.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

NODES = ("n1", "n2")
GPUS = 2
CPUS = 32
MEMORY_MB = 16_000
"""What each node claims to have; nothing checks it."""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
WAIT_S = 30.0
NULL_DEVICE = os.makedev(1, 3)

# Short waits where a site has long ones: a job that is queued again may start after
# cred_expire (120 s), and what ignores SIGTERM is killed after KillWait (30 s).
SLURM_CONF = """\
ClusterName=simulated
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
ReturnToService=2
MinJobAge=120
KillWait=10
DefMemPerCPU=100
{nodes}
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
NODE_LINE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs={cpus} RealMemory={memory} Gres=gpu:h100:{gpus}"
)


class CannotRun(Exception):
    """Why there can be no cluster here."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `folder` holds its configuration, state and logs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which SLURM's programs talk to this cluster."""
        folders = [str(self.folder / "bin"), str(Path(sys.executable).parent)]
        path = os.pathsep.join([*folders, os.environ["PATH"]])
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        """Run one of SLURM's programs and return what it prints; raises `RuntimeError`."""
        result = subprocess.run(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stdout.strip()}")
        return result.stdout.strip()

    def jobs(self, states: str = "running") -> list[str]:
        """Return the ids of the jobs in `states`."""
        return self.call("squeue", "--noheader", "--format=%i", f"--states={states}").split()

    def set_node(self, node: str, state: str) -> None:
        """Drain, resume or take down a node, as an administrator does."""
        reason = [] if state == "resume" else ["reason=test"]
        self.call("scontrol", "update", f"nodename={node}", f"state={state}", *reason)

    def end_in(self, job: str, seconds: int) -> None:
        """Move the end of a job's time, as an administrator may; SLURM looks twice a minute."""
        end = datetime.now() + timedelta(seconds=seconds)
        self.call("scontrol", "update", f"jobid={job}", f"endtime={end:%Y-%m-%dT%H:%M:%S}")

    def resume(self) -> None:
        """Make nodes that a test has drained or taken down usable again."""
        for node in NODES:
            with contextlib.suppress(RuntimeError):
                self.set_node(node, "resume")

    def is_idle(self) -> bool:
        """Tell whether no job is left and all nodes can take one."""
        if self.jobs("pending,running,completing"):
            return False
        states = self.call("sinfo", "--noheader", "--Node", "--format=%t").split()
        return set(states) == {"idle"}

    def stop(self) -> None:
        """End the jobs, then the daemons by their process ids; nothing is left running."""
        with contextlib.suppress(RuntimeError, TimeoutError, subprocess.SubprocessError):
            self.call("scancel", "--user", "root")
            wait_for("end of the jobs", lambda: not self.jobs("running,completing"))
        for process in daemons(self.folder):
            end_tree(process)
        for process in (left := strays(self.folder)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)


def why_not() -> str | None:
    """Return why no cluster can run here, None if one can."""
    if os.geteuid() != 0:
        return "a SLURM cluster on one host needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    with tempfile.TemporaryDirectory() as folder:
        try:
            make_device(Path(folder) / "gpu")
        except OSError as error:
            return f"no device files can be made here ({error.strerror})"
    return None


def start(folder: Path) -> Cluster:
    """Start a cluster in `folder`, a short path that exists; raises `CannotRun`."""
    if reason := why_not():
        raise CannotRun(reason)
    write_configuration(folder)
    cluster = Cluster(folder)
    try:
        start_daemon(folder, munge_command(folder))
        wait_for("munge", (folder / "munge.socket").exists)
        start_daemon(folder, ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"])
        for node in NODES:
            start_daemon(folder, ["slurmd", "-D", "-N", node, "-f", f"{folder}/slurm.conf"])
        wait_for("idle nodes", lambda: answers(cluster.is_idle))
    except (OSError, TimeoutError) as error:
        logs = "\n".join(tail(path) for path in sorted(folder.glob("*.log")))
        cluster.stop()
        raise CannotRun(f"{error}\n{logs}") from error
    return cluster


def write_configuration(folder: Path) -> None:
    """Write what the daemons read, and make the device files."""
    host = socket.gethostname().split(".")[0]
    ports = free_ports(1 + len(NODES))
    nodes = [
        NODE_LINE.format(name=n, host=host, port=p, cpus=CPUS, memory=MEMORY_MB, gpus=GPUS)
        for n, p in zip(NODES, ports[1:], strict=True)
    ]
    text = SLURM_CONF.format(folder=folder, host=host, ports=ports, nodes="\n".join(nodes))
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nIgnoreSystemd=yes\n")
    (folder / "state").mkdir()
    lines = []
    for node in NODES:
        (folder / f"spool.{node}").mkdir()
        for number in range(GPUS):
            path = folder / f"{node}.gpu{number}"
            make_device(path)
            lines.append(f"NodeName={node} Name=gpu Type=h100 File={path}\n")
    (folder / "gres.conf").write_text("AutoDetect=off\n" + "".join(lines))
    write_srun(folder)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def write_srun(folder: Path) -> None:
    """Write a `srun` that finds this cluster.

    Snakemake's plugin takes SLURM_CONF away in jobs, where a site has /etc/slurm/slurm.conf.
    """
    path = folder / "bin/srun"
    path.parent.mkdir()
    real = shutil.which("srun")
    path.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
    path.chmod(0o755)


def make_device(path: Path) -> None:
    """Make a device file that stands for a GPU; it is another name of /dev/null."""
    os.mknod(path, 0o666 | stat.S_IFCHR, NULL_DEVICE)
    # Some containers let it be made, but not be opened.
    path.open("wb").close()


def munge_command(folder: Path) -> list[str]:
    """Return the command of a munged of our own, which SLURM's programs prove themselves with."""
    places = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
    words = [f"--{option}={folder}/munge.{name}" for option, name in places.items()]
    return ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log", *words]


def start_daemon(folder: Path, command: Sequence[str]) -> None:
    """Start a daemon that outlives this process, and note its id."""
    with (folder / "daemons.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    with (folder / "pids").open("a") as pids:
        pids.write(f"{process.pid} {psutil.Process(process.pid).create_time()}\n")


def daemons(folder: Path) -> list[psutil.Process]:
    """Return the daemons of the cluster in `folder` that still run, the last started first."""
    found = []
    for line in reversed((folder / "pids").read_text().splitlines()):
        number, created = line.split()
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(number))
            if process.create_time() == float(created):
                found.append(process)
    return found


def strays(folder: Path) -> list[psutil.Process]:
    """Return what is left of the jobs of the cluster in `folder`.

    A node that counts as lost ends none of its processes. Jobs inherit the PATH of `environment`.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            path = process.environ().get("PATH", "").split(os.pathsep)
            if str(folder / "bin") in path and process.pid != os.getpid():
                found.append(process)
    return found


def end_tree(process: psutil.Process) -> None:
    """End a daemon, and kill what it leaves."""
    with contextlib.suppress(psutil.NoSuchProcess):
        kin = process.children(recursive=True)
        process.terminate()
        _, alive = psutil.wait_procs([process], timeout=10)
        for left in [*alive, *kin]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs([*alive, *kin], timeout=5)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(question: Callable[[], bool]) -> bool:
    """Ask a cluster that may not be up yet."""
    try:
        return question()
    except RuntimeError:
        return False


def wait_for(what: str, holds: Callable[[], bool], seconds: float = WAIT_S) -> None:
    """Wait until `holds()`; raise `TimeoutError` if that takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.1)


def tail(path: Path) -> str:
    """Return the end of a log under its name."""
    lines = path.read_text(errors="replace").splitlines()[-8:]
    return "\n".join([f"{path.name}:", *lines])


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Run a cluster in a temporary folder; raises `CannotRun`."""
    # Sockets need a short path.
    cluster = start(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    try:
        yield cluster
    finally:
        cluster.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Start or stop a cluster."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path, help="for its state, for example /tmp/slurm")
    arguments = parser.parse_args(argv)
    folder = arguments.folder.absolute()
    if arguments.action == "stop":
        Cluster(folder).stop()
        return 0
    try:
        folder.mkdir(parents=True)
        start(folder)
    except (CannotRun, FileExistsError) as error:
        print(f"no cluster: {error}", file=sys.stderr)
        return 1
    print(f'export SLURM_CONF={folder}/slurm.conf PATH="{folder}/bin:$PATH"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
