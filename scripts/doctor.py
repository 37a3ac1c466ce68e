"""Say what runs on this machine: driver, GPUs, compilers, disks, a verdict for each environment.

    python -m scripts.doctor                      # everything
    python -m scripts.doctor cu128 cu130 --json   # for scripts
    python -m scripts.doctor --record here.json   # keep this machine, to ask about it elsewhere
    python -m scripts.doctor --machine here.json  # ask about a machine that was kept
    python -m scripts.doctor --configfile mine.yaml   # and about the engines of a config
    python -m scripts.doctor --model /models/llama-8b # or of one model, with the config's settings

Exit codes: 0 if the environments named (without names: what `auto` would take) run here, and all
engines of the config, if one is given, are possible; 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.doctor.auto import head_node
from scripts.llm_batch.doctor.choose import Choice, choose
from scripts.llm_batch.doctor.examine import Examination, examine, to_record, visible
from scripts.llm_batch.doctor.listing import listing
from scripts.llm_batch.doctor.variants import load_variants
from scripts.llm_batch.doctor.verdicts import ExaminedEngine
from scripts.llm_batch.environments.identity import load_spec
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.machine.read import load_machine, read_machine
from scripts.llm_batch.machine.records import Gpu, Machine, Tool, to_json

ENVS = Path(__file__).parents[1] / "envs"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environments", nargs="*", help="environments that must run; default: auto")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--machine", type=Path, help="a recorded machine in place of this one")
    parser.add_argument("--record", type=Path, help="write this machine to a JSON file")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="as for snakemake")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="likewise")
    parser.add_argument("--model", help="a model folder; short for --config model=FOLDER")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="where environments are, or will be"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; 0 if what is asked for runs, 1 if not."""
    arguments = build_parser().parse_args(argv)
    for name in arguments.environments:
        load_spec(name, ENVS)
    whole = (
        load_machine(arguments.machine) if arguments.machine else read_machine(arguments.results)
    )
    if arguments.record:
        record(whole, arguments.record)
    examination = examine(visible(whole, os.environ), ENVS, arguments.results)
    engines = asked_engines(arguments, examination.machine)
    if arguments.json:
        print(json.dumps(to_record(examination, engines), indent=2))
    else:
        print(listing(examination, engines, max(80, shutil.get_terminal_size((110, 24)).columns)))
        if examination.machine.is_this and (reason := head_node(examination.machine)):
            print(f"note: auto is refused here when the workflow runs: {reason}")
    possible = all(not engine.findings for engine in engines)
    return 0 if possible and passes(examination, arguments.environments) else 1


def asked_engines(arguments: argparse.Namespace, machine: Machine) -> list[ExaminedEngine]:
    """Return the engines of the config that the command line names, none without one."""
    settings = [*arguments.config, *([f"model={arguments.model}"] if arguments.model else [])]
    if not arguments.configfile and not settings:
        return []
    # Only a config needs them: the machine is examined with the standard library, PyYAML, psutil
    # and nvidia-ml-py alone, so also where nothing has been set up yet.
    from scripts.llm_batch.doctor.engines import Paths, examine_engines
    from scripts.llm_batch.plan.make import make_plan
    from scripts.plan import read_config

    variants = load_variants(ENVS)
    config = read_config(arguments.configfile, settings, lambda: choose(variants, machine))
    plan = make_plan(config, ENVS, Paths())
    return examine_engines(plan.engines.values(), ENVS, machine, arguments.results)


def passes(examination: Examination, names: Sequence[str]) -> bool:
    """Tell whether all environments in `names` run; without names, whether `auto` finds one."""
    if not names:
        return isinstance(examination.auto, Choice)
    status = {verdict.variant.name: verdict.status for verdict in examination.verdicts}
    return all(status[name] != "no" for name in names)


def record(machine: Machine, path: Path) -> None:
    """Write a machine to `path` with the day, without what tells which machine or user it was.

    Left out are users, folders, and the serial numbers in UUIDs of cards.
    """
    if not machine.is_this:
        raise WorkflowError(f"--record {path}: this is {machine.origin}, not a machine to record")
    kept = replace(
        machine,
        origin=f"recorded by scripts.doctor on {datetime.now(UTC):%Y-%m-%d}",
        inventory=replace(machine.inventory, gpus=tuple(map(_anonymous, machine.gpus))),
        results_disk=replace(machine.results_disk, path="results"),
        hub_disk=replace(machine.hub_disk, path="~/.cache/huggingface/hub"),
        nvcc=_without_folder(machine.nvcc),
        compiler=_without_folder(machine.compiler),
    )
    write_text_atomic(path, json.dumps(to_json(kept), indent=1) + "\n")


def _anonymous(gpu: Gpu) -> Gpu:
    return replace(
        gpu,
        uuid=f"GPU-{gpu.index:08d}-0000-0000-0000-000000000000",
        processes=tuple(replace(one, user="somebody") for one in gpu.processes),
        mig_instances=tuple(
            replace(one, uuid=f"MIG-{gpu.index:08d}-0000-0000-0000-{place:012d}")
            for place, one in enumerate(gpu.mig_instances)
        ),
    )


def _without_folder(tool: Tool | None) -> Tool | None:
    return None if tool is None else replace(tool, path=Path(tool.path).name)


if __name__ == "__main__":
    run_cli(main)
