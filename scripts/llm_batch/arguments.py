"""What the programs of rules take from their command lines."""

from __future__ import annotations

import json
import sys
from typing import Any

STDIN = "-"


def json_argument(text: str) -> Any:
    """Return the value of JSON `text`; for `-` that of standard input.

    Linux takes 131 072 bytes in one argument, which a few hundred runs fill. A rule hands on what
    grows with the runs as `--key - <<< {params.key:q}`: bash itself writes it, whatever its length.
    """
    return json.load(sys.stdin) if text == STDIN else json.loads(text)
