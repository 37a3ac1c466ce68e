"""Compare our generate stage with bare vLLM on a GPU, without any download.

    python -m tests.peers.gpu --seconds 540 --out gpu.json          speed, an 8B Llama's shape
    python -m tests.peers.gpu --check strict --out strict.json      equality of answers, a 1B's

Run by the interpreter that has vLLM; the generate stage's own libraries must be there too.
With `--cpu` a tiny model and few requests show that the script itself works.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.llm_batch.errors import WorkflowError, run_cli

NEEDED = {
    "filelock": "filelock",
    "orjson": "orjson",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "pynvml": "nvidia-ml-py",
}
"""Modules that `scripts.generate` imports, and the packages they come in."""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--check", choices=("strict",), help="equality instead of speed")
    parser.add_argument("--cpu", action="store_true", help="a tiny model on the CPU engine")
    parser.add_argument(
        "--engine-python", type=Path, default=Path(sys.executable), help="has vLLM; default: this"
    )
    parser.add_argument("--shape", help="8b, 1b or tiny")
    parser.add_argument("--requests", type=int, help="default: 2000, for the check 300")
    parser.add_argument("--input-len", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--output-len", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--max-num-seqs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--samplings",
        default="seeded,greedy",
        type=lambda text: text.split(","),
        help="%(default)s",
    )
    parser.add_argument(
        "--peers",
        default="ours,bare,bench",
        type=lambda text: text.split(","),
        help="of ours, bare, bench, ours-strict; default: %(default)s",
    )
    parser.add_argument("--seconds", type=float, default=540, help="start nothing that ends later")
    parser.add_argument("--folder", type=Path, help="where to work; default: temporary")
    parser.add_argument("--out", type=Path, help="JSON with everything measured")
    return parser


def missing_modules(engine_here: bool) -> list[str]:
    """Return the packages without which nothing can be measured here."""
    wanted = {**NEEDED, "vllm": "vllm", "torch": "torch"} if engine_here else NEEDED
    return [package for name, package in wanted.items() if importlib.util.find_spec(name) is None]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 on success."""
    arguments = build_parser().parse_args(argv)
    engine_here = arguments.engine_python == Path(sys.executable)
    if missing := missing_modules(engine_here):
        raise WorkflowError(
            f"{sys.executable}: these packages are missing: {', '.join(missing)}; install them, "
            "or name the folder they are in by PYTHONPATH"
        )
    from tests.peers import gpu_check, gpu_speed

    # One cache of compiled code for all programs: ours would have one of its own.
    caches = tempfile.TemporaryDirectory(prefix="peers-cache-")
    os.environ.setdefault("VLLM_CACHE_ROOT", caches.name)
    measure = gpu_check.measure if arguments.check else gpu_speed.measure
    with caches, tempfile.TemporaryDirectory(prefix="peers-") as folder:
        measure(arguments, arguments.folder.absolute() if arguments.folder else Path(folder))
    return 0


if __name__ == "__main__":
    run_cli(main)
