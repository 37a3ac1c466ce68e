"""What only an engine's log tells. The wording changes with vLLM's versions; unknown is None.

With several GPUs every rank writes the lines about memory; the first stands for all. The sources
of the wordings are the logs of 0.6 and 0.11, and the code of 0.28.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GIB = 1 << 30

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_SIZE = rf"{_NUMBER} ?Gi?B"

ATTENTION = re.compile(
    r"Using (?:AttentionBackendEnum\.)?([A-Z0-9_]+) (?:attention )?backend"
    r"|KV cache layout for ([A-Z0-9_]+) backend"
    r"|Using ([A-Za-z0-9 ]+) backend"
)

SIZES = {
    "weights_bytes": re.compile(
        rf"(?:Model loading took|Loading model weights took|model weights take) {_SIZE}"
    ),
    "peak_activation_bytes": re.compile(
        rf"{_SIZE} for peak activation|PyTorch activation peak memory takes {_SIZE}"
    ),
    "non_torch_bytes": re.compile(rf"non_torch_memory takes {_SIZE}|{_SIZE} for non-torch memory"),
    "graph_capture_bytes": re.compile(
        rf"Graph capturing finished in {_NUMBER} secs, took {_SIZE}|{_SIZE} for CUDAGraph memory"
    ),
    "kv_cache_bytes": re.compile(
        rf"Available KV cache memory: {_SIZE}|memory reserved for KV Cache is {_SIZE}"
    ),
}

_CONSUMED = re.compile(rf"Actual usage is {_SIZE} for consumed memory \(weights \+ non-torch\)")
_BLOCKS = re.compile(r"# (?:GPU|CUDA) blocks: ([0-9]+)")

STARTUP = {
    "compile": re.compile(rf"compilation: {_NUMBER} s|torch\.compile (?:took|takes) {_NUMBER} s"),
    "graph_capture": re.compile(rf"Graph capturing finished in {_NUMBER} secs"),
    "warm_up": re.compile(rf"init engine \(.*?\) took {_NUMBER} s"),
}


def log_facts(log: Path) -> dict[str, Any]:
    """Return the facts in a log: sizes in bytes, and seconds of start-up as `log_startup_s`."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    startup = {name: _number(regex, text) for name, regex in STARTUP.items()}
    return {
        "attention_backend": _first(ATTENTION, text),
        **sizes(text),
        "log_startup_s": {name: value for name, value in startup.items() if value is not None},
    }


def sizes(text: str) -> dict[str, Any]:
    """Return what the parts of a GPU's memory hold, bytes; and the blocks that old versions tell.

    Today's vLLM tells weights and non-torch memory as one sum: the weights are subtracted.
    """
    found: dict[str, Any] = {name: _bytes(regex, text) for name, regex in SIZES.items()}
    consumed, weights = _bytes(_CONSUMED, text), found["weights_bytes"]
    if found["non_torch_bytes"] is None and consumed is not None and weights is not None:
        found["non_torch_bytes"] = max(0, consumed - weights)
    if blocks := _first(_BLOCKS, text):
        found["kv_cache_blocks"] = int(blocks)
    return found


def _groups(regex: re.Pattern[str], text: str) -> list[str]:
    match = regex.search(text)
    return [] if match is None else [group for group in match.groups() if group is not None]


def _first(regex: re.Pattern[str], text: str) -> str | None:
    return next(iter(_groups(regex, text)), None)


def _number(regex: re.Pattern[str], text: str) -> float | None:
    found = _first(regex, text)
    return None if found is None else float(found)


def _bytes(regex: re.Pattern[str], text: str) -> int | None:
    """Return the last number of the first match: a size."""
    found = _groups(regex, text)
    return int(float(found[-1]) * GIB) if found else None
