"""LoRA adapters: what vLLM cannot use or would use wrongly is refused from the files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import fetch_adapter
from scripts.llm_batch.addresses import address, canonical_json, read_json
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.generate.settings import engine_arguments
from scripts.llm_batch.ledger import Requester
from scripts.llm_batch.models.adapters import (
    SETTINGS,
    WEIGHTS,
    Adapter,
    adapter_rank,
    check_files,
    check_fit,
    local_adapter_identity,
    max_rank,
    staged_adapter,
)
from scripts.llm_batch.requests import sampling_key
from tests.engine.lora import make_adapter
from tests.engine.real import QUICKSTART
from tests.unit.test_supervisor_settings import spec


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "fr", seed=1)


def change(folder: Path, **changes: Any) -> None:
    """Change the settings of an adapter."""
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**settings, **changes}))


def test_the_adapter_of_the_tests_fits_its_model(adapter: Path) -> None:
    check_files(adapter)
    assert adapter_rank(adapter) == 4
    check_fit(Adapter("0" * 12, adapter, 4), QUICKSTART)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "vLLM uses LORA adapters only"),
        ({"use_dora": True}, "cannot use DoRA"),
        ({"bias": "all"}, "cannot use biases"),
        ({"lora_bias": True}, "cannot use biases"),
        ({"modules_to_save": ["lm_head"]}, "fully trained modules"),
        ({"rank_pattern": {"q_proj": 8}}, "ranks by module"),
        ({"alpha_pattern": {"q_proj": 8}}, "scales by module"),
        ({"trainable_token_indices": [3]}, "trained tokens"),
        ({"r": 0}, "expected a rank 'r' from 1 to 512, found 0"),
        ({"r": 1024}, "found 1024"),
        ({"r": "8"}, "found '8'"),
        ({"r": True}, "found True"),
    ],
)
def test_settings_that_vllm_cannot_use_are_refused(
    adapter: Path, changes: dict[str, Any], message: str
) -> None:
    change(adapter, **changes)
    with pytest.raises(WorkflowError, match=message) as caught:
        adapter_rank(adapter)
    assert str(caught.value).startswith(f"{adapter / SETTINGS}: ")


def test_broken_settings_are_refused(adapter: Path) -> None:
    for text in ("{", "[]"):
        (adapter / SETTINGS).write_text(text)
        with pytest.raises(WorkflowError, match="download the adapter again"):
            adapter_rank(adapter)


def test_missing_files_are_named(adapter: Path) -> None:
    with pytest.raises(WorkflowError, match="no such adapter folder"):
        check_files(adapter / "nowhere")
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(WorkflowError, match="pickled and can run code; save it with"):
        check_files(adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(WorkflowError, match="is the download complete"):
        check_files(adapter)
    (adapter / SETTINGS).unlink()
    with pytest.raises(WorkflowError, match="an adapter folder in PEFT format has one"):
        check_files(adapter)


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_torn_weights_are_refused(adapter: Path, size: int) -> None:
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(WorkflowError, match="download it again"):
        check_fit(Adapter("0" * 12, adapter, 4), QUICKSTART)


def test_an_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes((QUICKSTART / "model.safetensors").read_bytes())
    config = json.loads((QUICKSTART / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(WorkflowError, match=r"changes layer 2, but .* has layers 0 to 1"):
        check_fit(Adapter("0" * 12, adapter, 4), model)
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    other = make_adapter(tmp_path / "other", seed=1, model=model)
    with pytest.raises(WorkflowError, match=r"layers\.0\.self_attn\.q_proj takes 64 and gives 64"):
        check_fit(Adapter("0" * 12, other, 4), QUICKSTART)


def test_weights_without_matrices_are_refused(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes((QUICKSTART / "model.safetensors").read_bytes())
    with pytest.raises(WorkflowError, match="holds no LoRA matrices"):
        check_fit(Adapter("0" * 12, adapter, 4), QUICKSTART)


def test_the_stage_folder_holds_what_was_checked(adapter: Path, tmp_path: Path) -> None:
    identity = local_adapter_identity(adapter, DigestMemo(tmp_path / "memo.json"))
    folder = tmp_path / "results" / f"fr-{address('adapters', identity)}"
    arguments = ["--identity", canonical_json(identity), "--path", str(adapter)]
    arguments += ["--output", str(folder / "manifest.json")]
    assert fetch_adapter.main(arguments) == 0
    assert read_json(folder / "adapter.json")["rank"] == 4
    staged = staged_adapter(folder)
    assert staged == Adapter(address("adapters", identity), adapter.resolve(), 4)
    change(adapter, lora_alpha=99)
    with pytest.raises(WorkflowError, match="changed since the workflow was planned"):
        fetch_adapter.main(arguments)


def test_a_base_request_has_a_slot_beside_all_adapters_on_a_cpu() -> None:
    adapters = tuple(Adapter(str(n), Path("/a"), rank) for n, rank in enumerate((4, 16, 17)))
    _, cpu = engine_arguments(spec(adapters=adapters))
    assert cpu["enable_lora"] is True
    assert (cpu["max_loras"], cpu["max_cpu_loras"], cpu["max_lora_rank"]) == (4, 4, 32)
    _, gpu = engine_arguments(spec(adapters=adapters * 4, device="cuda"))
    assert (gpu["max_loras"], gpu["max_cpu_loras"], gpu["max_lora_rank"]) == (4, 12, 32)
    assert "enable_lora" not in engine_arguments(spec())[1]


@pytest.mark.parametrize(("rank", "largest"), [(1, 8), (8, 8), (9, 16), (257, 320), (512, 512)])
def test_the_smallest_rank_that_vllm_knows_is_taken(rank: int, largest: int) -> None:
    assert max_rank((Adapter("a", Path(), rank),)) == largest


def test_requests_of_adapters_have_keys_of_their_own() -> None:
    sampling = sampling_key({"params": {"max_tokens": 8, "temperature": 1.0}, "n": 1, "seed": 0})
    texts = {
        Requester(sampling, rule, adapter=adapter).text
        for rule in ("error", "truncate_left")
        for adapter in (None, "truncate_left", "fr")
    }
    assert len(texts) == 6
    assert '"adapter":"fr",' in Requester(sampling, "error", adapter="fr").text.after
