"""Which devices a machine has, which of them CUDA_VISIBLE_DEVICES leaves, and which are in use."""

from __future__ import annotations

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.gpus.choice import choose
from scripts.llm_batch.gpus.devices import (
    BUSY_VARIABLE,
    Device,
    busy_bytes,
    devices,
    visible_devices,
)
from tests.gpus.simulated import (
    GIB,
    simulated_gpu,
    simulated_inventory,
    simulated_process,
    simulated_slices,
)

FOUR = simulated_inventory(4)
MIXED = simulated_inventory([simulated_gpu(0), simulated_slices(1, 2), simulated_gpu(2)])


@pytest.mark.parametrize(
    ("value", "cards"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        (" 1 , 2 ", [1, 2]),
        ("1,1", [1]),
        ("GPU-00000002", [2]),
        ("gpu-00000003-0000-0000-0000-000000000003,0", [3, 0]),
    ],
)
def test_cuda_visible_devices_restricts_the_choice(value: str | None, cards: list[int]) -> None:
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert [device.card for device in visible_devices(FOUR, environ)] == cards


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("4", "no GPU 4 on this machine; there is: 0 = GPU-00000000-"),
        ("GPU-9", "no GPU GPU-9 on this machine"),
        ("GPU-0000000", "beginning of 4 UUIDs"),
        ("MIG-1", "no GPU MIG-1"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(value: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        visible_devices(FOUR, {"CUDA_VISIBLE_DEVICES": value})


def test_a_card_in_mig_mode_is_handed_out_in_slices() -> None:
    names = [device.name for device in devices(MIXED)]
    assert names == ["0", "MIG-10aaaaaa-0000", "MIG-11aaaaaa-0000", "2"]
    chosen = visible_devices(MIXED, {"CUDA_VISIBLE_DEVICES": "MIG-11aaa"})
    assert [device.uuid for device in chosen] == ["MIG-11aaaaaa-0000"]
    assert len(visible_devices(MIXED, {"CUDA_VISIBLE_DEVICES": "1"})) == 2


@pytest.mark.parametrize(
    ("used_gib", "process_gib", "user"),
    [
        (0.6, [], None),
        (1.5, [], None),
        (40.0, [], "40.0 GiB in use by a process that cannot be seen from here"),
        (0.6, [0.03], None),
        (0.6, [0.5], "0.6 GiB in use by python of alice (pid 4711)"),
        (0.6, [None], "0.6 GiB in use by python of alice (pid 4711)"),
        (41.0, [0.03, 40.0], "41.0 GiB in use by python of alice (pid 4711)"),
    ],
)
def test_a_card_is_in_use_by_memory_or_by_a_process(
    used_gib: float, process_gib: list[float | None], user: str | None
) -> None:
    processes = tuple(simulated_process(memory) for memory in process_gib)
    gpu = simulated_gpu(0, used_gib, processes=processes)
    assert devices(simulated_inventory([gpu]))[0].user() == user


@pytest.mark.parametrize(
    ("used_gib", "process_gib", "limit", "free"),
    [(3.0, [2.5], "4096", True), (3.0, [None], "4096", True), (5.0, [], "4096", False)],
)
def test_a_limit_of_ones_own_lets_a_desktop_pass(
    used_gib: float, process_gib: list[float | None], limit: str, free: bool
) -> None:
    processes = tuple(simulated_process(memory) for memory in process_gib)
    (device,) = devices(simulated_inventory([simulated_gpu(0, used_gib, processes=processes)]))
    assert (device.user(busy_bytes({BUSY_VARIABLE: limit})) is None) == free


def test_a_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(WorkflowError, match=f"{BUSY_VARIABLE}=4G: expected MiB as a whole number"):
        busy_bytes({BUSY_VARIABLE: "4G"})


NVLINK_PAIRS = [
    ["X", "NV4", "SYS", "SYS"],
    ["NV4", "X", "SYS", "SYS"],
    ["SYS", "SYS", "X", "NV12"],
    ["SYS", "SYS", "NV12", "X"],
]
PCIE = [
    ["X", "SYS", "PHB", "NODE"],
    ["SYS", "X", "SYS", "PIX"],
    ["PHB", "SYS", "X", "SYS"],
    ["NODE", "PIX", "SYS", "X"],
]


@pytest.mark.parametrize(
    ("links", "free", "count", "cards"),
    [
        (NVLINK_PAIRS, [0, 1, 2, 3], 2, [2, 3]),
        (NVLINK_PAIRS, [0, 1, 3], 2, [0, 1]),
        (NVLINK_PAIRS, [1, 3], 2, [1, 3]),
        (NVLINK_PAIRS, [2, 0, 1], 1, [2]),
        (PCIE, [0, 1, 2, 3], 2, [1, 3]),
        (PCIE, [0, 2, 3], 2, [0, 2]),
        ([], [0, 1, 2, 3], 2, [0, 1]),
        ([[None] * 4] * 4, [1, 2, 3], 2, [1, 2]),
    ],
)
def test_neighbours_are_preferred(
    links: list[list[str]], free: list[int], count: int, cards: list[int]
) -> None:
    there = devices(simulated_inventory(4, links))
    chosen = choose([there[card] for card in free], count, links)
    assert [device.card for device in chosen] == cards


def test_cards_of_one_model_are_preferred_to_near_ones() -> None:
    cards = [simulated_gpu(0, name="old"), simulated_gpu(1), simulated_gpu(2)]
    links = [["X", "NV4", "SYS"], ["NV4", "X", "SYS"], ["SYS", "SYS", "X"]]
    chosen = choose(devices(simulated_inventory(cards, links)), 2, links)
    assert [device.card for device in chosen] == [1, 2]


def test_sixteen_cards_are_chosen_from_in_a_moment() -> None:
    links = [["NV18"] * 16] * 16
    there = [Device(f"GPU-{n}", str(n), n, "B200", 180 * GIB, 0) for n in range(16)]
    assert [device.card for device in choose(there, 8, links)] == list(range(8))
