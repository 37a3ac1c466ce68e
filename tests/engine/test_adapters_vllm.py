"""LoRA adapters on a real vLLM: one engine for a model and its adapters, and right answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.llm_batch.models.adapters import staged_adapter
from tests.engine.conftest import Workspace, make_request
from tests.engine.lora import make_adapter
from tests.engine.real import real_workspace

pytestmark = pytest.mark.engine


def staged(folder: Path, name: str, seed: int, rank: int) -> Path:
    """Return an adapter's folder as `fetch_adapter` leaves it."""
    stage = folder / "adapters" / f"{name}-{seed:012d}"
    stage.mkdir(parents=True)
    (stage / "snapshot").symlink_to(make_adapter(folder / name, seed, rank))
    return stage


def requests_of(adapter: Path | None, count: int = 24) -> list[dict[str, Any]]:
    """Return greedy and seeded requests to one adapter, None for the model as it is."""
    made = []
    for number in range(count):
        prompt = {"text": f"{number}+{number * 7 % 89}="}
        request = make_request(number, prompt, temperature=1.0 if number % 2 else 0, max_tokens=8)
        if adapter is not None:
            address = staged_adapter(adapter).address
            request |= {"adapter": address, "key": address[-2:] + request["key"][2:]}
        made.append(request)
    return made


def answers(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {answer["key"]: answer for answer in workspace.answers()}


def test_a_model_and_its_adapters_share_an_engine_and_answer_as_alone(tmp_path: Path) -> None:
    """Two adapters of different ranks and the model: the same bits in one engine as in three."""
    french, german = staged(tmp_path, "fr", 11, 4), staged(tmp_path, "de", 12, 12)
    groups: list[tuple[Path, ...]] = [(), (french,), (german,), (french, german)]
    found = []
    for number, adapters in enumerate(groups):
        workspace = real_workspace(tmp_path, f"engine-{number}")
        asked = list(adapters if len(adapters) == 1 else (None, *adapters))
        # One after another in turn, so that all three meet in every step.
        turns = zip(*(requests_of(adapter) for adapter in asked), strict=True)
        workspace.write([request for turn in turns for request in turn])
        extra = ["--adapters", *map(str, adapters)] if adapters else []
        workspace.run(*extra)
        assert len(workspace.facts()["engines"]) == 1
        assert workspace.facts()["errors"] == {}
        found.append(answers(workspace))
    base, first, second, together = found
    assert together == base | first | second
    texts = [[answer["token_ids"] for answer in one.values()] for one in (base, first, second)]
    assert texts[0] != texts[1] != texts[2] != texts[0]


def test_an_adapter_of_no_use_is_told_before_any_request_is_asked(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(
        '{"hidden_size": 64, "intermediate_size": 320, "num_hidden_layers": 3}'
    )
    stage = staged(tmp_path, "fr", 11, 4)
    (stage / "snapshot").unlink()
    (stage / "snapshot").symlink_to(make_adapter(tmp_path / "small", 1, model=other))
    workspace = real_workspace(tmp_path, "refused")
    workspace.write(requests_of(None, 2))
    error = workspace.run("--adapters", str(stage), code=1).splitlines()[-1]
    assert error.startswith("error: ")
    assert "the adapter belongs to another model" in error
    assert workspace.exits() == []


def test_an_adapter_that_only_vllm_can_refuse_ends_in_one_line(tmp_path: Path) -> None:
    stage = staged(tmp_path, "fr", 11, 4)
    weights = tmp_path / "fr" / "adapter_model.safetensors"
    # A module that the model does not have, under a name as long.
    weights.write_bytes(weights.read_bytes().replace(b"q_proj", b"x_proj"))
    workspace = real_workspace(tmp_path, "refused")
    workspace.write(requests_of(None, 2))
    error = workspace.run("--adapters", str(stage), code=1).splitlines()[-1]
    assert error.startswith(f"error: adapter {(tmp_path / 'fr').resolve()}: ")
    assert workspace.exits() == ["crashed"]
    assert workspace.journaled() == []
