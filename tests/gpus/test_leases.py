"""Leases of simulated cards by real locks: waiting, other users' cards, other users' tricks."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.gpus import lease
from scripts.llm_batch.gpus.leases import Leases
from scripts.llm_batch.gpus.locks import LockFolder, lock_folder
from scripts.llm_batch.machine.records import GpuInventory
from tests.gpus.simulated import (
    simulated_gpu,
    simulated_inventory,
    simulated_process,
    simulated_slices,
)


class Stop(Exception):
    """Ends the waiting of a test."""


def leases(folder: Path, inventory: GpuInventory, **changes: object) -> Leases:
    values: dict[str, object] = {"environ": {}, "job": "b.0", "poll_s": 0.01, **changes}
    return Leases(LockFolder(folder), lambda: inventory, **values)  # type: ignore[arg-type]


def stop_with(reasons: list[str]) -> Callable[[str], None]:
    def waiting(reason: str) -> None:
        reasons.append(reason)
        raise Stop

    return waiting


def test_two_jobs_get_different_cards_and_the_third_is_told_who_has_them(tmp_path: Path) -> None:
    two = simulated_inventory(2)
    reasons: list[str] = []
    with leases(tmp_path, two).lease(1) as first, leases(tmp_path, two).lease(1) as second:
        assert [device.card for device in (*first, *second)] == [0, 1]
        with pytest.raises(Stop), leases(tmp_path, two, waiting=stop_with(reasons)).lease(1):
            pass
    user = f"pid {os.getpid()}"
    assert reasons[0].startswith("waiting for 1 of 2 GPUs: GPU 0 leased by b.0 of ")
    assert reasons[0].count(user) == 2
    with leases(tmp_path, two).lease(2) as both:
        assert len(both) == 2


def test_cards_that_others_use_are_skipped_and_named(tmp_path: Path) -> None:
    busy = simulated_gpu(0, 40.0, processes=(simulated_process(),))
    inventory = simulated_inventory([busy, simulated_gpu(1)])
    with leases(tmp_path, inventory).lease(1) as devices:
        assert [device.card for device in devices] == [1]
    reasons: list[str] = []
    with pytest.raises(Stop), leases(tmp_path, inventory, waiting=stop_with(reasons)).lease(2):
        pass
    assert "GPU 0 has 40.0 GiB in use by python of alice (pid 4711); GPU 1 free" in reasons[0]


def test_a_job_that_others_block_does_not_keep_cards_from_those_behind_it(tmp_path: Path) -> None:
    busy = simulated_gpu(0, 40.0)
    inventory = simulated_inventory([busy, simulated_gpu(1)])
    waits = threading.Event()
    ends = threading.Event()

    def check() -> None:
        if ends.is_set():
            raise Stop

    def wait_for_two() -> None:
        tell = leases(tmp_path, inventory, check=check, waiting=lambda _: waits.set())
        with pytest.raises(Stop), tell.lease(2):
            pass

    thread = threading.Thread(target=wait_for_two)
    thread.start()
    assert waits.wait(300)
    with leases(tmp_path, inventory).lease(1) as devices:
        assert [device.card for device in devices] == [1]
    ends.set()
    thread.join()


def test_a_card_that_was_taken_between_look_and_lock_is_given_back(tmp_path: Path) -> None:
    looks = [simulated_gpu(0), simulated_gpu(0), simulated_gpu(0, 30.0)]

    def read() -> GpuInventory:
        return simulated_inventory([looks.pop(0) if len(looks) > 1 else looks[0]])

    reasons: list[str] = []
    waits = Leases(LockFolder(tmp_path), read, {}, "b.0", waiting=stop_with(reasons), poll_s=0.01)
    with pytest.raises(Stop), waits.lease(1):
        pass
    assert reasons == ["GPU 0: 30.0 GiB in use by a process that cannot be seen from here"]


@pytest.mark.parametrize(
    ("inventory", "environ", "count", "message"),
    [
        (simulated_inventory(2), {}, 4, "needs 4 GPUs, this machine has 2; lower tensor"),
        (simulated_inventory(2), {"CUDA_VISIBLE_DEVICES": "1"}, 2, "CUDA_VISIBLE_DEVICES leaves 1"),
        (simulated_inventory(0), {}, 1, r"driver \(simulated\); use environment cpu, or"),
        (GpuInventory(reason="restart it", broken=True), {}, 1, "needs 1 GPU, and restart it$"),
        (simulated_inventory([simulated_slices(0, 3)]), {}, 2, "needs 2 GPUs, this machine has 1"),
    ],
)
def test_more_cards_than_exist_are_refused(
    tmp_path: Path, inventory: GpuInventory, environ: dict[str, str], count: int, message: str
) -> None:
    with (
        pytest.raises(WorkflowError, match=message),
        leases(tmp_path, inventory, environ=environ).lease(count),
    ):
        pass


def test_the_folder_is_open_to_all_users_and_sticky(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    before = os.umask(0o077)
    try:
        with leases(folder, simulated_inventory(1)).lease(1):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666}


def card_lock(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / f"gpu-{simulated_gpu(0).uuid}"


def link_elsewhere(folder: Path) -> None:
    card_lock(folder).symlink_to(folder.parent / "victim")


def second_name(folder: Path) -> None:
    (folder.parent / "victim").write_text("precious")
    card_lock(folder).hardlink_to(folder.parent / "victim")


def pipe(folder: Path) -> None:
    os.mkfifo(card_lock(folder))


def link_as_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("trick", [link_elsewhere, second_name, pipe, link_as_folder])
def test_what_is_put_in_a_locks_place_is_not_touched(
    tmp_path: Path, trick: Callable[[Path], None]
) -> None:
    folder = tmp_path / "locks"
    trick(folder)
    with (
        pytest.raises(WorkflowError, match="LLM_BATCH_LOCK_FOLDER"),
        leases(folder, simulated_inventory(1)).lease(1),
    ):
        pass
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == "precious"
    assert not list(tmp_path.glob("elsewhere/*"))


def test_a_lock_file_that_somebody_deleted_is_made_again(tmp_path: Path) -> None:
    one = simulated_inventory(1)
    with leases(tmp_path, one).lease(1):
        held = card_lock(tmp_path)
        held.unlink()
    with (
        leases(tmp_path, one).lease(1),
        card_lock(tmp_path).open() as stream,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_engine_does_not_inherit_a_lease(tmp_path: Path) -> None:
    with leases(tmp_path, simulated_inventory(1)).lease(1):
        command = ["ls", "-l", "/proc/self/fd"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, close_fds=False)
    assert str(tmp_path) not in done.stdout


def test_users_agree_on_the_folder() -> None:
    assert lock_folder({"TMPDIR": "/somewhere"}).path == lock_folder({}).path
    assert lock_folder({"LLM_BATCH_LOCK_FOLDER": "/x"}).path == Path("/x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become two other users")
def test_two_users_share_the_cards() -> None:
    """Also with the kernel's protection of files in sticky folders, whatever it is set to."""
    with tempfile.TemporaryDirectory(prefix="locks-", dir="/tmp") as name:
        Path(name).chmod(0o1777)
        share_cards(Path(name) / "locks")


def share_cards(folder: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from scripts.llm_batch.gpus.leases import Leases\n"
        "from scripts.llm_batch.gpus.locks import LockFolder\n"
        "from tests.gpus.simulated import simulated_inventory\n"
        "two = simulated_inventory(2)\n"
        "os.setuid(int(sys.argv[2]))\n"
        "def waiting(reason):\n"
        "    # While another job is just choosing, all cards are kept for it for a moment.\n"
        "    if 'kept for' not in reason: print(reason, flush=True); sys.exit()\n"
        "leases = Leases(LockFolder(Path(sys.argv[1])), lambda: two, {}, 'b.0', waiting=waiting)\n"
        "with leases.lease(int(sys.argv[3])) as devices:\n"
        "    print(*(device.card for device in devices), flush=True); sys.stdin.read()\n"
    )

    def start(user: int, count: int) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", program, str(folder), str(user), str(count)]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    alice, bob = start(12345, 1), start(54321, 1)
    assert sorted([line(alice), line(bob)]) == ["0", "1"]
    late = start(54321, 1)
    assert line(late).count("leased by b.0 of ") == 2
    alice.kill()
    alice.wait()
    heir = start(54321, 1)
    assert line(heir) in ("0", "1")
    for process in (bob, late, heir):
        process.communicate("")


RECORD = "LLM_BATCH_SIMULATED_MACHINE"
SLURM = {"SLURM_JOB_ID": "17"}


@pytest.mark.parametrize(
    ("environ", "count", "visible"),
    [
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "2"}, 1, "2"),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "3,1"}, 2, "3,1"),
        ({**SLURM, "SLURM_JOB_GPUS": "0,1"}, 2, "0,1"),
        ({**SLURM, "SLURM_STEP_GPUS": "1", "SLURM_JOB_GPUS": "0,1"}, 1, "1"),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "MIG-1-2-3"}, 1, "MIG-1-2-3"),
    ],
)
def test_what_slurm_chose_is_obeyed_without_locks(
    tmp_path: Path, environ: dict[str, str], count: int, visible: str
) -> None:
    folder = tmp_path / "locks"
    with lease(count, "b.0", {**environ, "LLM_BATCH_LOCK_FOLDER": str(folder)}) as leased:
        assert leased.environment["CUDA_VISIBLE_DEVICES"] == visible
        assert leased.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert not folder.exists()


def test_one_allocation_is_shared_out_by_leases(tmp_path: Path) -> None:
    environ = {**SLURM, "CUDA_VISIBLE_DEVICES": "2,5", "LLM_BATCH_LOCK_FOLDER": str(tmp_path)}
    with lease(1, "b.0", environ) as one, lease(1, "b.1", environ) as other:
        chosen = [leased.environment["CUDA_VISIBLE_DEVICES"] for leased in (one, other)]
        assert chosen == ["2", "5"]
        assert one.uuids == ()


def test_an_allocation_with_too_few_gpus_is_refused(tmp_path: Path) -> None:
    environ = {**SLURM, "CUDA_VISIBLE_DEVICES": "0"}
    with (
        pytest.raises(WorkflowError, match="needs 2 GPUs, and SLURM gave job 17 1"),
        lease(2, "b.0", environ),
    ):
        pass


def test_a_cpu_engine_needs_no_lease(tmp_path: Path) -> None:
    environ = {"LLM_BATCH_LOCK_FOLDER": str(tmp_path / "locks")}
    with lease(0, "b.0", environ) as leased:
        assert (leased.environment, leased.uuids, leased.size) == ({}, (), 0)
    assert not (tmp_path / "locks").exists()


def test_notes_of_holders_can_be_read(tmp_path: Path) -> None:
    with leases(tmp_path, simulated_inventory(1), job="batch.3").lease(1):
        note = json.loads(card_lock(tmp_path).read_text())
    assert (note["job"], note["pid"]) == ("batch.3", os.getpid())
