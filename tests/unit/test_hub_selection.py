"""Which files of a repository are fetched: lists as real repositories have them."""

from __future__ import annotations

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.selection import needed_files

TOKENIZER = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
CONFIGS = ["config.json", "generation_config.json"]
SHARDS = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
INDEX = "model.safetensors.index.json"
MAP = {f"layer.{i}": shard for i, shard in enumerate(SHARDS)}

LLAMA = [
    ".gitattributes", "LICENSE", "README.md", "USE_POLICY.md", *CONFIGS, *SHARDS, INDEX,
    "original/consolidated.00.pth", "original/params.json", "original/tokenizer.model", *TOKENIZER,
]  # fmt: skip
MISTRAL = [
    "README.md", *CONFIGS, "consolidated.safetensors", *SHARDS, INDEX, "params.json",
    "tokenizer.model", "tokenizer.model.v3", *TOKENIZER,
]  # fmt: skip
OPT = [
    ".gitattributes", "LICENSE.md", "README.md", *CONFIGS, "flax_model.msgpack", "merges.txt",
    "pytorch_model.bin", "special_tokens_map.json", "tf_model.h5", "tokenizer_config.json",
    "vocab.json",
]  # fmt: skip
OLD = [
    *CONFIGS, "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json", "model.safetensors", "model.fp16.safetensors",
    "training_args.bin", "trainer_state.json", "optimizer.pt", "onnx/model.onnx", "modeling_x.py",
    "additional_chat_templates/tool.jinja", *TOKENIZER,
]  # fmt: skip


def test_a_sharded_model_is_its_index_and_the_files_it_names() -> None:
    assert needed_files(LLAMA, MAP) == sorted([*CONFIGS, *SHARDS, INDEX, *TOKENIZER])


def test_the_same_weights_under_another_name_are_left_out() -> None:
    chosen = needed_files(MISTRAL, MAP)
    assert "consolidated.safetensors" not in chosen
    assert {"tokenizer.model", "params.json"} <= set(chosen)
    without_index = [path for path in MISTRAL if path != INDEX]
    assert "consolidated.safetensors" not in needed_files(without_index)


def test_other_formats_and_training_state_are_left_out() -> None:
    assert needed_files(OLD) == sorted(
        [
            *CONFIGS,
            "model.safetensors",
            "modeling_x.py",
            "additional_chat_templates/tool.jinja",
            *TOKENIZER,
        ]
    )


def test_pickled_weights_are_taken_only_when_allowed() -> None:
    with pytest.raises(
        WorkflowError, match=r"pickled \(pytorch_model\.bin\).*write `pickled: true`"
    ):
        needed_files(OPT)
    chosen = needed_files(OPT, pickled=True)
    assert "pytorch_model.bin" in chosen
    assert {"merges.txt", "vocab.json"} <= set(chosen)
    assert not {"flax_model.msgpack", "tf_model.h5", "LICENSE.md"} & set(chosen)


def test_patterns_that_name_pickled_weights_need_the_same_permission() -> None:
    with pytest.raises(WorkflowError, match="pickled"):
        needed_files(OPT, patterns=["*.json", "*.bin"])


def test_an_adapter_is_its_config_and_its_weights() -> None:
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors", *TOKENIZER]
    assert needed_files(files) == sorted(files[1:])


@pytest.mark.parametrize(
    ("paths", "patterns", "message"),
    [
        (["model.safetensors"], None, "no config.json"),
        (["config.json"], None, "no weights"),
        (["config.json", "a.gguf", "b.gguf"], None, "2 GGUF files, each a model of its own"),
        (OLD, ["*.gguf"], r"no file matches '\*\.gguf' of `files`"),
    ],
)
def test_what_is_no_model_is_refused(
    paths: list[str], patterns: list[str] | None, message: str
) -> None:
    with pytest.raises(WorkflowError, match=message):
        needed_files(paths, patterns=patterns)


def test_gguf_parts_of_one_model_are_one_model() -> None:
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert needed_files(["config.json", *parts]) == ["config.json", *parts]
