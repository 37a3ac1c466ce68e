"""Whatever a model's config.json and an engine's arguments hold, the check answers in lines."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.schema import engine_schema
from scripts.llm_batch.doctor.engines import problems
from scripts.llm_batch.doctor.pairs import Pair
from scripts.llm_batch.machine.read import load_machine
from scripts.llm_batch.models.shape import model_shape
from scripts.llm_batch.models.size import ModelSize
from tests.unit.tiny_environments import ROOT

MACHINES = [load_machine(path) for path in sorted((ROOT / "tests/machines").glob("*.json"))]
KEYS = (
    "attn_logit_softcapping",
    "head_dim",
    "hidden_size",
    "kv_lora_rank",
    "layer_types",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "qk_rope_head_dim",
    "quantization_config",
    "sliding_window",
    "text_config",
    "torch_dtype",
)
ODD: list[Any] = [None, True, False, 0, -1, 1.5, "", "gemma2", "50", [], {}, [1], float("nan")]
LIKELY: list[Any] = [1, 2, 8, 12, 64, 4096, 50.0, "bfloat16", {"quant_method": "fp8"}]
NESTED: list[Any] = [{"quant_method": 3}, {"num_attention_heads": "x"}, ["sliding_attention"] * 8]
VERSIONS = ("", "0.6.1.post1", "0.8.5.post1", "0.10.1.1", "0.11.2", "0.19.1+cu129", "0.32.0", "dev")


def values(chance: random.Random, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return some of the keys with values of any kind."""
    chosen = chance.sample(keys, chance.randint(0, len(keys)))
    return {key: chance.choice(ODD + 3 * LIKELY + NESTED) for key in chosen}


def arguments(chance: random.Random, group: str) -> dict[str, Any]:
    """Return engine settings that the schema allows, so far as their kind goes."""
    made: dict[str, Any] = {}
    for key, schema in engine_schema(group)["properties"].items():
        if chance.random() < 0.7:
            continue
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        kind = chance.choice([kind for kind in kinds if kind != "null"])
        some: dict[str, list[Any]] = {
            "integer": [1, 2, 3, 8, 100_000],
            "number": [0.1, 0.9, 80],
            "boolean": [True, False],
            "object": [{}, {"num_attention_heads": 7}],
            "string": schema.get("enum") or ["fp8", "FLASH_ATTN", "XFORMERS", "awq", "?"],
        }
        made[key] = chance.choice([value for value in some[kind] if value is not None])
    return made


def test_no_config_and_no_arguments_make_the_check_fail(tmp_path: Path) -> None:
    chance = random.Random(20261124)
    told = 0
    for _ in range(1000):
        config = values(chance, KEYS) if chance.random() < 0.95 else None
        args = arguments(chance, "args")
        weights = {chance.choice(["BF16", "F32", "I32", "F8_E4M3"]): chance.randint(1, 10**12)}
        engine = Pair(
            model="odd",
            vllm=chance.choice(VERSIONS),
            packages=chance.choice([None, frozenset(), frozenset({"vllm"})]),
            args=args,
            tuning=arguments(chance, "tuning"),
            determinism=chance.choice(["fast", "strict"]),
            config=config,
            size=ModelSize("odd", weights, model_shape(config or {})),
            gpus=chance.choice([0, args.get("tensor_parallel_size", 1)]),
            machine=chance.choice([None, *MACHINES]),
        )
        for finding in problems(engine):
            told += 1
            assert finding.status == "no"
            assert finding.cure
            assert "\n" not in str(finding)
    assert told > 200
