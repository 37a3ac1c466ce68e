"""What the tests with a real vLLM share: the environment, models, and vLLM without our code."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import built_cpu_environment
from tests.engine.conftest import ROOT, TIMEOUT_S, Workspace

QUICKSTART = ROOT / "config" / "quickstart" / "model"

ARGS = {"dtype": "float32", "max_model_len": 128}

BARE = """
import json, sys
import vllm
from vllm import SamplingParams

if __name__ == "__main__":
    model, path, args = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    llm = vllm.LLM(model=model, enforce_eager=True, enable_chunked_prefill=False, seed=0,
                   max_num_batched_tokens=4096, kv_cache_memory_bytes=64 << 20, **args)
    requests = [json.loads(line) for line in open(path)]
    texts = []
    for request in requests:
        params = SamplingParams(**request["sampling"])
        prompt = request["prompt"]
        if "messages" in prompt:
            outputs = llm.chat(prompt["messages"], params, use_tqdm=False)
        else:
            outputs = llm.generate(prompt["text"], params, use_tqdm=False)
        completion = outputs[0].outputs[0]
        texts.append([completion.text, list(completion.token_ids), completion.finish_reason,
                      len(outputs[0].prompt_token_ids)])
    print("RESULT " + json.dumps(texts))
"""


def interpreter() -> Path:
    """Return the interpreter of the environment `cpu`, or the one of LLM_BATCH_ENGINE_PYTHON."""
    named = os.environ.get("LLM_BATCH_ENGINE_PYTHON")
    return Path(named) if named else built_cpu_environment() / "bin" / "python"


def real_workspace(folder: Path, name: str, model: Path = QUICKSTART) -> Workspace:
    """Return a workspace whose engine is vLLM on the CPU, in folders as the workflow makes them."""
    environment = folder / "environment"
    if not environment.exists():
        environment.mkdir(parents=True)
        # Links, so that the interpreter finds its libraries beside it.
        for entry in interpreter().parents[1].iterdir():
            if entry.name != "environment.json":
                (environment / entry.name).symlink_to(entry)
        (environment / "environment.json").write_text('{"cuda": null}')
    models = folder / f"models-{name}"
    models.mkdir(parents=True)
    (models / "snapshot").symlink_to(model.resolve())
    return Workspace(
        folder / name,
        engine={"backend": "vllm", "args": ARGS, "determinism": "strict"},
        tuning={"max_num_seqs": 32},
        model=str(models),
        environment=str(environment),
    )


def broken_model(folder: Path, value: float) -> Path:
    """Return a copy of the quickstart model all of whose weights are `value` (float32)."""
    folder.mkdir(parents=True)
    for path in QUICKSTART.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    weights.write_bytes(content[:start] + struct.pack("<f", value) * ((len(content) - start) // 4))
    return folder


def bare_answers(workspace: Workspace) -> list[list[Any]]:
    """Return what vLLM's own `LLM` answers to the requests of a workspace, one at a time."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_ATTN_SPLIT_KV": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    arguments = ["-c", BARE, str(QUICKSTART), str(workspace.requests), json.dumps(ARGS)]
    done = subprocess.run(
        [interpreter(), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    answers: list[list[Any]] = json.loads(line.removeprefix("RESULT "))
    return answers
