"""Engines that start at the same moment: ports, temporary folders, and who compiles first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.company import (
    BLOCK_PORTS,
    COLD,
    FIRST_PORT,
    WARM,
    CompileCache,
    compile_cache,
    own_places,
    port_block,
    scratch_folder,
)
from scripts.llm_batch.generate.settings import EngineSpec

ROOT = Path(__file__).parents[2]


def make_spec(tmp_path: Path, device: str = "cuda", dtype: str = "bfloat16") -> EngineSpec:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return EngineSpec(
        backend="vllm",
        args={"dtype": dtype},
        dummy={},
        tuning={},
        determinism="fast",
        model=model,
        adapters=(),
        interpreter=tmp_path / "results" / "environments" / "cu130-1" / "bin" / "python",
        device=device,
    )


def test_engines_of_one_machine_get_ports_of_their_own(tmp_path: Path) -> None:
    environ = {"LLM_BATCH_LOCK_FOLDER": str(tmp_path)}
    first, second = port_block(environ), port_block(environ)
    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == (FIRST_PORT, FIRST_PORT + BLOCK_PORTS)
    first[1].release()
    again = port_block({**environ, "VLLM_PORT": "40000"})
    assert again is not None
    assert again[0] == 40000


def test_without_a_folder_for_locks_ports_are_left_to_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert port_block({"LLM_BATCH_LOCK_FOLDER": str(tmp_path / "file")}) is None


def test_an_engine_has_an_empty_folder_that_is_gone_afterwards(tmp_path: Path) -> None:
    environ = {"LLM_BATCH_LOCK_FOLDER": str(tmp_path / "locks"), "TMPDIR": str(tmp_path)}
    shard = tmp_path / "shard"
    left = scratch_folder(shard, {"TMPDIR": "/tmp"})
    (left / "left by a killed engine").touch()
    with own_places(make_spec(tmp_path), shard, {**environ, "TMPDIR": "/tmp"}) as variables:
        scratch = Path(variables["TMPDIR"])
        assert scratch == left
        assert list(scratch.iterdir()) == []
        assert scratch.stat().st_mode & 0o777 == 0o700
        # With the name of a socket after it: 108 bytes are the kernel's limit, one is the end.
        assert len(variables["VLLM_RPC_BASE_PATH"]) + 1 + 36 <= 107
    assert not scratch.exists()


def test_a_folder_that_somebody_put_there_is_not_used(tmp_path: Path) -> None:
    environ = {"TMPDIR": "/tmp"}
    path = scratch_folder(tmp_path / "shard", environ)
    path.rmdir()
    path.symlink_to(tmp_path)
    try:
        with pytest.raises(WorkflowError, match="not a folder of yours"):
            scratch_folder(tmp_path / "shard", environ)
    finally:
        path.unlink()


def test_a_cache_belongs_to_environment_gpu_and_what_is_compiled(tmp_path: Path) -> None:
    def folder(gpu: str = "NVIDIA H200", dtype: str = "bfloat16") -> Path:
        cache = compile_cache(make_spec(tmp_path, dtype=dtype), gpu, {})
        assert cache is not None
        return cache.folder

    results = tmp_path / "results"
    assert folder().parent == results / "caches" / "cu130-1" / "NVIDIA-H200"
    assert folder() == folder()
    assert len({folder(), folder(gpu="NVIDIA H100"), folder(dtype="float16")}) == 3
    assert compile_cache(make_spec(tmp_path, device="cpu"), "H200", {}) is None
    assert compile_cache(make_spec(tmp_path), "H200", {"VLLM_CACHE_ROOT": "/mine"}) is None


STARTER = """
import sys, time
from pathlib import Path
from scripts.llm_batch.generate.company import CompileCache

root, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
cache = CompileCache(root, "env", "GPU", {})
with cache.starting(lambda: None, lambda reason: None) as state:
    with log.open("a") as stream:
        stream.write(f"{state} {time.monotonic()}\\n")
    time.sleep(seconds)
    cache.engine_is_ready()
"""


def start(root: Path, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", STARTER, str(root), str(log), str(seconds)]
    return subprocess.Popen(words, cwd=ROOT)


def test_one_engine_compiles_and_the_others_wait_for_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    engines = [start(tmp_path / "caches", log, 1.0) for _ in range(4)]
    assert [engine.wait(300) for engine in engines] == [0] * 4
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [state for state, _ in lines] == [COLD, WARM, WARM, WARM]
    began = float(lines[0][1])
    assert all(float(at) >= began + 1.0 for _, at in lines[1:])
    # And a later run.
    assert start(tmp_path / "caches", log, 0.0).wait(300) == 0
    assert log.read_text().splitlines()[-1].startswith(WARM)


def test_when_the_compiling_engine_is_killed_the_next_one_compiles(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = start(tmp_path / "caches", log, 600.0)
    while not log.exists() or not log.read_text():
        time.sleep(0.02)
    second = start(tmp_path / "caches", log, 0.0)
    time.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(300) == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == [COLD, COLD]


def test_an_engine_that_fails_to_start_leaves_the_compiling_to_the_next(tmp_path: Path) -> None:
    caches = [CompileCache(tmp_path, "env", "GPU", {}) for _ in range(2)]
    with pytest.raises(RuntimeError), caches[0].starting(lambda: None, print):
        raise RuntimeError
    with caches[1].starting(lambda: None, print) as state:
        assert state == COLD
