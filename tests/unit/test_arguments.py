"""What grows with the runs reaches a program whole, however much it is."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINUX_ARGUMENT_BYTES = 131_072
"""`MAX_ARG_STRLEN`, 32 pages, in the kernel's binfmts.h."""


def test_an_argument_above_the_kernels_limit_comes_through_standard_input(tmp_path: Path) -> None:
    runs = {
        f"it's run {n} – \u2028": {"run": f"r-{n:012x}", "evaluation": f"e-{n:012x}"}
        for n in range(2000)
    }
    experiment = json.dumps({"experiment": "many", "report": "none", "runs": runs})
    assert len(experiment) > LINUX_ARGUMENT_BYTES
    output = tmp_path / "results/experiments/many/experiment.json"
    program = shlex.join([sys.executable, "-m", "scripts.link_experiment", "--experiment", "-"])
    # As Snakemake does with a long command: a script, not an argument of bash.
    script = tmp_path / "script.sh"
    script.write_text(f"{program} --output {output} <<< {shlex.quote(experiment)}\n")
    subprocess.run(["bash", script], cwd=ROOT, check=True, timeout=300)
    assert json.loads(output.read_text()) == json.loads(experiment)
    assert len(list((output.parent / "runs").iterdir())) == 2000
