"""What engines on one machine must not share (ports, temporary folders), and what they should.

Compiled code is shared: by engines of the same environment, GPU model and identity, so no engine
ever runs what another one's arguments led to. The first of them compiles alone while the others
wait, because eight compilers at once take longer than one and then seven readers.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import filelock

from scripts.llm_batch.addresses import canonical_json, write_json_atomic
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.settings import EngineSpec, engine_arguments
from scripts.llm_batch.gpus.locks import Lock, lock_folder

FIRST_PORT = 21_000
BLOCK_PORTS = 50
BLOCKS = 200
"""Up to port 31 000: below what Linux hands out by itself (from 32 768 on)."""

LONGEST_FOLDER = 60
"""A socket's path has at most 107 bytes, and vLLM's has a name of 36 after this."""

COLD, WARM = "cold", "warm"

POLL_S = 0.5

log = logging.getLogger(__name__)


@contextmanager
def own_places(
    spec: EngineSpec, folder: Path, environ: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Yield the variables that give an engine ports and a temporary folder of its own.

    `folder` is the shard's; only one supervisor at a time has it.
    """
    if spec.backend == "dummy":
        yield {}
        return
    with engine_places(folder, environ) as variables:
        yield variables


@contextmanager
def engine_places(folder: Path, environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the variables of `own_places`, whatever the engine."""
    scratch = scratch_folder(folder, environ)
    block = port_block(environ)
    try:
        yield {
            "TMPDIR": str(scratch),
            "VLLM_RPC_BASE_PATH": str(scratch),
            **({} if block is None else {"VLLM_PORT": str(block[0])}),
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if block is not None:
            block[1].release()


def port_block(environ: Mapping[str, str]) -> tuple[int, Lock] | None:
    """Return the first of some ports that no other engine of ours uses, and the lock on them.

    vLLM looks for a free port, closes it and opens it again seconds later: without blocks, two
    engines can find the same one. It counts up from VLLM_PORT past ports that others use. None
    where there is no folder for locks: then the kernel chooses, and hardly ever the same.
    """
    first = int(environ["VLLM_PORT"]) if environ.get("VLLM_PORT", "").isdigit() else FIRST_PORT
    try:
        locks = lock_folder(environ)
        for number in range(BLOCKS):
            lock = locks.take(f"ports-{number:03}")
            if lock is not None:
                lock.note({"pid": os.getpid(), "since": time.time()})
                return first + number * BLOCK_PORTS, lock
    except WorkflowError as error:
        log.info("ports are left to chance: %s", error)
    return None


def scratch_folder(folder: Path, environ: Mapping[str, str]) -> Path:
    """Make an empty temporary folder for the shard at `folder`; what a killed one left is deleted.

    Raises `WorkflowError` if somebody else has put something in its place.
    """
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
    parent = environ.get("TMPDIR") or tempfile.gettempdir()
    if len(parent) + len(name) > LONGEST_FOLDER - len("/llmb-"):
        parent = "/tmp"
    path = Path(parent) / f"llmb-{name}"
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise WorkflowError(f"{path}: not a folder of yours; remove it or set TMPDIR")
        shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


class CompileCache:
    """Compiled code of one engine on one GPU model.

    `variables` tell the engine where it lies. `root` is the folder of all caches, `key` what the
    code depends on besides the environment and the GPU.
    """

    def __init__(self, root: Path, environment: str, gpu: str, key: Mapping[str, object]) -> None:
        shared = root / environment / (re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-") or "gpu")
        digest = hashlib.sha256(canonical_json(key).encode()).hexdigest()[:12]
        self.folder = shared / digest
        self._ready = self.folder / "ready.json"
        self._lock = filelock.FileLock(self.folder / "compile.lock", blocking=False)
        self.variables = {
            "VLLM_CACHE_ROOT": str(self.folder / "vllm"),
            "TRITON_CACHE_DIR": str(self.folder / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "DG_JIT_CACHE_DIR": str(self.folder / "deep_gemm"),
            # Kernels that know nothing of the model; FlashInfer locks each of them by itself.
            "FLASHINFER_WORKSPACE_BASE": str(shared / "shared"),
            "CUDA_CACHE_PATH": str(shared / "shared" / "cuda"),
        }

    @contextmanager
    def starting(self, check: Callable[[], None], waiting: Callable[[str], None]) -> Iterator[str]:
        """Yield "warm" if the code is there, else "cold" as the one engine that compiles it now.

        Waits while another engine compiles; `check` may raise to end that.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            while not self._ready.exists() and not self._acquire():
                check()
                waiting("waiting for another engine that compiles the same")
                time.sleep(POLL_S)
            yield WARM if self._ready.exists() else COLD
        finally:
            self.release()

    def _acquire(self) -> bool:
        try:
            self._lock.acquire()
        except filelock.Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            # Some network disks have no locks: then each engine compiles for itself.
            log.info("%s: no locks there: %s", self.folder, error)
        return True

    def engine_is_ready(self) -> None:
        """Note that all code is compiled, and let the others start."""
        if not self._ready.exists():
            write_json_atomic(self._ready, {"ready": time.time()})
        self.release()

    def release(self) -> None:
        """Let another engine compile, if this one held the lock."""
        self._lock.release()


def compile_cache(spec: EngineSpec, gpu: str, environ: Mapping[str, str]) -> CompileCache | None:
    """Return the cache of an engine on a GPU model; None on a CPU, where nothing is compiled.

    A user's own VLLM_CACHE_ROOT is left alone. Caches lie in results/caches, beside environments.
    """
    if spec.device == "cpu" or spec.backend == "dummy" or environ.get("VLLM_CACHE_ROOT"):
        return None
    config = spec.model / "config.json" if spec.model else None
    _, arguments = engine_arguments(spec)
    key = {
        # The shapes decide what is compiled, the weights do not.
        "config": hashlib.sha256(config.read_bytes()).hexdigest() if config else None,
        "arguments": arguments,
        "determinism": spec.determinism,
    }
    environment = spec.interpreter.parent.parent
    return CompileCache(environment.parent.parent / "caches", environment.name, gpu, key)
