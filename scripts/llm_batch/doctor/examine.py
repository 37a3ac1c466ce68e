"""Everything the doctor finds out: the machine, each environment on it, and what `auto` is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import address, read_json
from scripts.llm_batch.doctor.choose import Choice, choose
from scripts.llm_batch.doctor.variants import Variant, load_variants
from scripts.llm_batch.doctor.verdicts import ExaminedEngine, Verdict, judge
from scripts.llm_batch.environments.identity import environment_identity
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.gpus.devices import devices, visible_devices
from scripts.llm_batch.machine.records import Machine, to_json


@dataclass(frozen=True)
class Built:
    """What is in a built environment: its folder, torch's version and CUDA, vLLM's version."""

    folder: str
    torch: str | None
    cuda: str | None
    vllm: str | None


@dataclass(frozen=True)
class Examination:
    """The machine with the verdict on each environment; `built` holds those that are there.

    `auto` is the choice, or the line that says why there is none.
    """

    machine: Machine
    verdicts: tuple[Verdict, ...]
    built: Mapping[str, Built]
    auto: Choice | str


def examine(machine: Machine, envs_dir: Path, results: Path) -> Examination:
    """Return the verdict on every environment in `envs_dir` on `machine`."""
    variants = load_variants(envs_dir)
    built = {v.name: found for v in variants if (found := built_environment(v, envs_dir, results))}
    auto: Choice | str
    try:
        auto = choose(variants, machine)
    except WorkflowError as error:
        auto = str(error)
    verdicts = tuple(judge(variant, machine, variant.name in built) for variant in variants)
    return Examination(machine, verdicts, built, auto)


def built_environment(variant: Variant, envs_dir: Path, results: Path) -> Built | None:
    """Return what lies at the environment's address, None if it is not built.

    Without its conda layer it has another address, and will do.
    """
    identities = (environment_identity(variant.name, envs_dir, conda=c) for c in (True, False))
    folders = [
        results / "environments" / f"{variant.name}-{address('environments', identity)}"
        for identity in identities
    ]
    folder = next((one for one in folders if (one / "manifest.json").is_file()), None)
    if folder is None:
        return None
    try:
        record = read_json(folder / "environment.json")
    except WorkflowError:
        record = {}
    packages = record.get("packages") or {}
    vllm = packages.get("vllm") or packages.get(f"vllm-{variant.name}")
    return Built(str(folder), packages.get("torch"), record.get("cuda"), vllm)


def visible(machine: Machine, environ: Mapping[str, str]) -> Machine:
    """Return the machine with the cards that `CUDA_VISIBLE_DEVICES` leaves.

    Raises `WorkflowError` if that names a card that is not there.
    """
    inventory = machine.inventory
    chosen = {device.card for device in visible_devices(inventory, environ)}
    kept = [place for place, gpu in enumerate(inventory.gpus) if gpu.index in chosen]
    if len(kept) == len(inventory.gpus):
        return machine
    reduced = replace(
        inventory,
        gpus=tuple(inventory.gpus[place] for place in kept),
        topology=tuple(tuple(inventory.topology[a][b] for b in kept) for a in kept),
        reason=None if kept else "CUDA_VISIBLE_DEVICES leaves no GPU",
    )
    return replace(machine, inventory=reduced)


def notes(machine: Machine) -> Iterator[str]:
    """Yield what a user should know of the machine besides the verdicts."""
    for device in devices(machine.inventory):
        if user := device.user():
            yield f"{device.label} is used: {user}"
    for gpu in machine.gpus:
        if gpu.mig:
            sizes = ", ".join(
                f"{slice_.memory_total_bytes / 1e9:.1f} GB" for slice_ in gpu.mig_instances
            )
            yield (
                f"GPU {gpu.index} is cut into slices (MIG: {sizes or 'none made'}); an engine can "
                "use one slice, and no tensor parallelism"
            )
    if len({gpu.name for gpu in machine.gpus}) > 1:
        yield "the cards differ: answers of one run may come from either kind; the facts say which"
    if machine.hub_login == "none":
        yield "no token for the model hub: gated models need `hf auth login` or HF_TOKEN"


def to_record(examination: Examination, engines: Sequence[ExaminedEngine]) -> dict[str, Any]:
    """Return an examination as JSON values, for scripts."""
    auto = examination.auto
    return {
        "machine": to_json(examination.machine),
        "notes": list(notes(examination.machine)),
        "environments": [_verdict(verdict, examination.built) for verdict in examination.verdicts],
        "auto": {"environment": auto.name, "reason": auto.reason}
        if isinstance(auto, Choice)
        else {"environment": None, "reason": auto},
        "engines": [to_json(engine) for engine in engines],
    }


def _verdict(verdict: Verdict, built: Mapping[str, Built]) -> dict[str, Any]:
    variant = verdict.variant
    found = built.get(variant.name)
    return {
        "name": variant.name,
        "status": verdict.status,
        "reason": verdict.reason,
        "findings": [to_json(finding) for finding in verdict.findings],
        "torch": variant.torch,
        "cuda": variant.cuda,
        "vllm": variant.vllm,
        "vllm_cuda": variant.vllm_cuda,
        "built": to_json(found) if found else None,
    }
