"""The doctor against recorded machines: every environment in envs/ on every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.llm_batch.doctor.choose import Choice, choose
from scripts.llm_batch.doctor.cuda import DRIVERS, FAMILIES, newer_or_equal, runs_on, version
from scripts.llm_batch.doctor.variants import Variant, load_variants
from scripts.llm_batch.doctor.verdicts import judge
from scripts.llm_batch.errors import ConfigError
from scripts.llm_batch.machine.read import load_machine
from tests.unit.tiny_environments import ROOT

ENVS = ROOT / "envs"
MACHINES = ROOT / "tests" / "machines"

NAMES = ("cu130", "cu129", "cu128", "cu126", "cu124", "cu121", "cu118", "cpu")

# In the order of NAMES: "runs", or the rule that speaks against it; "~" before a rule that leaves
# something that runs. Last what `auto` takes; None where it refuses.
EXPECTED: dict[str, tuple[str, str | None]] = {
    # Nothing has code for compute capability 3.7, whatever the driver.
    "k80-driver-470": ("driver driver driver driver driver driver code runs", None),
    # Minor-version compatibility reaches from 11.0 to 11.8, and not into CUDA 12.
    "a100-driver-450": ("driver driver driver driver driver driver runs runs", "cu118"),
    "v100-driver-470": ("driver driver driver driver driver driver runs runs", "cu118"),
    "centos7-a100-driver-515": ("glibc glibc glibc glibc glibc driver glibc glibc", None),
    # A driver for 12.0 runs compiled code of all of CUDA 12; nvcc 11.4 disturbs no wheel.
    "lost-evening-driver-525": ("driver runs runs runs runs runs runs runs", "cu129"),
    "t4-driver-535": ("driver runs runs runs runs runs runs runs", "cu129"),
    "h100-driver-535": ("driver runs runs runs runs runs runs runs", "cu129"),
    "mig-a100-driver-535": ("driver runs runs runs runs runs runs runs", "cu129"),
    "busy-4090-driver-545": ("driver runs runs runs runs runs runs runs", "cu129"),
    "a100-driver-550": ("driver runs runs runs runs runs runs runs", "cu129"),
    "l40s-driver-560": ("driver runs runs runs runs runs runs runs", "cu129"),
    # Blackwell needs wheels from CUDA 12.8 on, and their FlashAttention a driver that knows 12.9.
    "5090-driver-570": ("driver ~ptx ~ptx code code code code runs", "cu129"),
    "b200-driver-570": ("driver runs runs code code code code runs", "cu129"),
    "5090-driver-580": ("runs runs runs code code code code runs", "cu130"),
    # The conda layer brings gcc, so that a machine without a compiler is enough.
    "h200-driver-575": ("driver runs runs runs runs runs runs runs", "cu129"),
    "recorded-h100-driver-580": ("runs runs runs runs runs runs runs runs", "cu130"),
    # CUDA 13 dropped Volta.
    "v100-driver-580": ("code runs runs runs runs runs runs runs", "cu129"),
    "mixed-driver-580": ("~code runs runs runs runs runs runs runs", "cu129"),
    # A full disk stops a build, and does not change what `auto` means.
    "h100-driver-590": ("disk disk disk disk disk disk disk runs", "cu130"),
    "laptop": ("gpu gpu gpu gpu gpu gpu gpu runs", "cpu"),
    "driver-not-loaded": ("gpu gpu gpu gpu gpu gpu gpu runs", None),
    "alpine-old-cpu": ("glibc glibc glibc glibc glibc glibc glibc glibc", None),
}


def machine_path(name: str) -> Path:
    """Return the file of a machine; those without a kind in their name are composed."""
    return MACHINES / f"{name if name.startswith('recorded-') else f'composed-{name}'}.json"


@pytest.fixture(scope="module")
def variants() -> list[Variant]:
    return load_variants(ENVS)


def test_every_recorded_machine_has_a_verdict_expected() -> None:
    found = {path.stem.removeprefix("composed-") for path in MACHINES.glob("*.json")}
    assert found == EXPECTED.keys()
    assert len(found) >= 12


def test_composed_machines_say_that_they_are_no_recordings() -> None:
    for path in MACHINES.glob("*.json"):
        origin = load_machine(path).origin
        kind = path.stem.partition("-")[0]
        assert f": {kind}" in origin
        assert ("not recorded on a real machine" in origin) is (kind == "composed")


@pytest.mark.parametrize("name", EXPECTED)
def test_the_verdict_on_every_environment(name: str, variants: list[Variant]) -> None:
    machine = load_machine(machine_path(name))
    assert [variant.name for variant in variants] == list(NAMES)
    told = []
    for variant in variants:
        verdict = judge(variant, machine)
        rule = verdict.deciding.rule if verdict.deciding else ""
        told.append({"runs": "runs", "limited": f"~{rule}", "no": rule}[verdict.status])
    assert " ".join(told) == EXPECTED[name][0]


@pytest.mark.parametrize("name", EXPECTED)
def test_auto_takes_the_newest_environment_that_is_supported(
    name: str, variants: list[Variant]
) -> None:
    machine = load_machine(machine_path(name))
    wanted = EXPECTED[name][1]
    if wanted is None:
        with pytest.raises(ConfigError, match=r"^environment auto: "):
            choose(variants, machine)
        return
    choice = choose(variants, machine)
    assert choice.name == wanted
    assert "\n" not in str(choice)


def reason(name: str, environment: str, variants: list[Variant]) -> str:
    machine = load_machine(machine_path(name))
    return next(judge(v, machine).reason for v in variants if v.name == environment)


@pytest.mark.parametrize(
    ("name", "environment", "said"),
    [
        ("a100-driver-450", "cu121", "CUDA 12.1 needs driver 525.60.13 or newer, here is driver"),
        ("a100-driver-450", "cu118", "by minor-version compatibility compiled code runs"),
        ("v100-driver-580", "cu130", "torch 2.13.0+cu130 has no code for Tesla V100-SXM2-32GB"),
        ("5090-driver-570", "cu126", "take a variant of a newer CUDA"),
        ("v100-driver-580", "cu130", "take a variant of an older CUDA"),
        ("5090-driver-570", "cu128", "update the driver to 575.51.03, or set attention_backend"),
        ("mixed-driver-580", "cu130", "keep these cards out with CUDA_VISIBLE_DEVICES"),
        ("centos7-a100-driver-515", "cu118", "its wheels need glibc 2.31, the system has glibc"),
        ("lost-evening-driver-525", "cu121", "nvcc 11.4 on PATH does not fit CUDA 12.1"),
        ("lost-evening-driver-525", "cu128", "nvcc 11.4 on PATH is not used"),
        ("a100-driver-550", "cu126", "nvcc 12.4 on PATH does not fit CUDA 12.6"),
        (
            "h100-driver-590",
            "cu128",
            "/home/user/llm-batch-inference/results has 6.0; free some space",
        ),
        ("driver-not-loaded", "cu130", "try nvidia-smi"),
        ("alpine-old-cpu", "cpu", "run it in a container"),
    ],
)
def test_a_verdict_says_why_and_what_helps(
    name: str, environment: str, said: str, variants: list[Variant]
) -> None:
    assert said in reason(name, environment, variants)


def test_auto_says_why_it_is_not_the_newest(variants: list[Variant]) -> None:
    machine = load_machine(MACHINES / "composed-h100-driver-535.json")
    choice = choose(variants, machine)
    assert isinstance(choice, Choice)
    assert str(choice) == (
        "environment auto is cu129 here: the newest that driver 535.161.08 and NVIDIA H100 80GB "
        "HBM3 (9.0) support; not cu130: CUDA 13.0 needs driver 580.65.06 or newer, here is driver "
        "535.161.08 (CUDA 12.2)"
    )


# --- The facts behind the verdicts -------------------------------------------------------------


def test_drivers_in_envs_are_those_of_nvidias_table(variants: list[Variant]) -> None:
    for variant in variants:
        if variant.cuda is None:
            assert variant.driver_minimum is None
            continue
        newest = max(variant.cuda, variant.vllm_cuda or "", key=version)
        assert variant.driver_minimum == FAMILIES[version(variant.cuda)[0]]
        assert variant.driver_full == DRIVERS[newest]


def test_newer_cuda_asks_for_a_newer_driver() -> None:
    ordered = [version(DRIVERS[cuda]) for cuda in sorted(DRIVERS, key=version)]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize(
    ("found", "wanted", "enough"),
    [
        ("525.60.13", "525.60.13", True),
        ("525.9", "525.60.13", False),
        ("570.26", "570.26.0", True),
        ("580", "579.99.99", True),
        ("2.4", "2.31", False),
        ("0.6.1.post1", "0.11", False),
    ],
)
def test_versions_are_compared_as_numbers(found: str, wanted: str, enough: bool) -> None:
    assert newer_or_equal(found, wanted) is enough


@pytest.mark.parametrize(
    ("compiled", "capability", "runs"),
    [
        (["8.0"], "8.6", True),
        (["8.6"], "8.0", False),
        (["8.0", "9.0"], "10.0", False),
        (["7.5"], "8.0", False),
        ([], "8.0", False),
    ],
)
def test_code_runs_on_higher_minor_versions_of_its_own_major(
    compiled: list[str], capability: str, runs: bool
) -> None:
    assert runs_on(compiled, capability) is runs


def test_an_environment_without_a_description_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("name: odd\n", encoding="utf-8")
    (tmp_path / "odd.requirements.txt").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"odd\.yaml: not a description of an environment"):
        load_variants(tmp_path)
