"""Config in, plan out, and `ask`: what rules ask of the plan, in `scripts/llm_batch/rules/`.

Names here land among Snakemake's own, so there are few of them.

Inputs are `ancient()`: an output's address, not a file's time, says whether it is up to date.
"""

import sys
from pathlib import Path

ROOT = Path(workflow.basedir).resolve()
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scripts.llm_batch.rules.start import Start

STAGE_FOLDER = r"[A-Za-z0-9][A-Za-z0-9._+-]*-[0-9a-f]{12}"

START = Start(ROOT, workflow, config, logger)
ask = START.ask
