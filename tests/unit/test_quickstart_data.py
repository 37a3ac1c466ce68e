"""The quickstart's prompts and model are what their card says, checked without an engine."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from scripts.make_quickstart_prompts import (
    OPERATORS,
    Problem,
    all_problems,
    as_json_lines,
    held_out_problems,
    is_held_out,
    main,
    make_rows,
)

QUICKSTART = Path(__file__).parents[2] / "config" / "quickstart"
MODEL = QUICKSTART / "model"
PROMPTS = QUICKSTART / "prompts.jsonl"

# What the quickstart's engine is configured with, in tokens; a byte is a token.
ENGINE_CONTEXT = 64
MAX_TOKENS = 16
CHAT_MARKS = 3


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def good(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] in ("addition", "subtraction")]


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, int]:
    tokens: dict[str, int] = read_json(MODEL / "tokenizer.json")["model"]["vocab"]
    return tokens


def read_tensors(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the size of its data in bytes."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, path.stat().st_size - 8 - length


def expected_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """The weights of a Llama whose output matrix is its embedding."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [width],
        "post_attention_layernorm": [width],
        "self_attn.q_proj": [queries, width],
        "self_attn.k_proj": [keys, width],
        "self_attn.v_proj": [keys, width],
        "self_attn.o_proj": [width, queries],
        "mlp.gate_proj": [inner, width],
        "mlp.up_proj": [inner, width],
        "mlp.down_proj": [width, inner],
    }
    shapes = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    return shapes | {
        "model.embed_tokens.weight": [config["vocab_size"], width],
        "model.norm.weight": [width],
    }


def test_about_a_fifth_of_the_problems_is_held_out() -> None:
    total = sum(1 for _ in all_problems())
    assert total == 20_000
    assert 0.18 < len(held_out_problems()) / total < 0.22


@pytest.mark.parametrize("op", OPERATORS)
def test_a_problem_and_its_mirror_image_are_held_out_together(op: str) -> None:
    pairs = [(a, b) for a in range(0, 100, 7) for b in range(a)]
    assert all(is_held_out(Problem(a, op, b)) == is_held_out(Problem(b, op, a)) for a, b in pairs)


def test_the_split_does_not_change_unnoticed() -> None:
    # A model trained under another split would have seen what it is measured on.
    first = [problem for problem in all_problems() if is_held_out(problem)][:6]
    assert [f"{p.a}{p.op}{p.b}" for p in first] == ["0+4", "0+10", "0+13", "0+17", "0+32", "0+44"]


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        (Problem(47, "+", 38), "85"),
        (Problem(99, "+", 99), "198"),
        (Problem(3, "-", 10), "-7"),
        (Problem(5, "-", 5), "0"),
    ],
)
def test_an_answer_is_the_plain_number(problem: Problem, answer: str) -> None:
    assert problem.answer == answer


def test_the_maker_reproduces_the_prompts_file(tmp_path: Path) -> None:
    copy = tmp_path / "prompts.jsonl"
    assert main(["--output", str(copy)]) == 0
    assert copy.read_bytes() == PROMPTS.read_bytes()
    assert copy.read_text(encoding="utf-8") == as_json_lines(make_rows())


def test_the_prompts_file_has_the_promised_size(
    rows: list[dict[str, Any]], good: list[dict[str, Any]]
) -> None:
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "addition": 500,
        "subtraction": 500,
        "too_long": 5,
        "empty": 3,
    }
    assert (len(rows) - len(good)) / len(rows) < 0.01
    assert PROMPTS.stat().st_size <= 300_000


def test_every_row_has_the_same_fields_of_the_same_types(rows: list[dict[str, Any]]) -> None:
    types = {"id": str, "question": str, "a": int, "op": str, "b": int, "answer": str, "kind": str}
    assert all({key: type(value) for key, value in row.items()} == types for row in rows)


def test_ids_and_problems_are_unique(rows: list[dict[str, Any]]) -> None:
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({(row["a"], row["op"], row["b"]) for row in rows}) == len(rows)


def test_no_row_is_a_problem_the_model_was_trained_on(rows: list[dict[str, Any]]) -> None:
    assert all(is_held_out(Problem(row["a"], row["op"], row["b"])) for row in rows)


def test_every_reference_is_right(rows: list[dict[str, Any]]) -> None:
    wrong = [
        row["id"]
        for row in rows
        if int(row["answer"]) != (row["a"] + row["b"] if row["op"] == "+" else row["a"] - row["b"])
    ]
    assert wrong == []


def test_every_good_question_asks_for_its_own_problem(good: list[dict[str, Any]]) -> None:
    assert all(
        row["question"] == f"What is {row['a']} {row['op']} {row['b']}?"
        and row["id"] == f"{row['kind']}-{row['a']}-{row['b']}"
        for row in good
    )


def test_good_questions_fit_the_engine_and_long_ones_only_the_model(
    rows: list[dict[str, Any]], good: list[dict[str, Any]]
) -> None:
    context = read_json(MODEL / "config.json")["max_position_embeddings"]
    too_long = [len(row["question"].encode()) for row in rows if row["kind"] == "too_long"]
    assert max(len(row["question"]) for row in good) + CHAT_MARKS + MAX_TOKENS <= ENGINE_CONTEXT
    assert min(too_long) > 2 * ENGINE_CONTEXT
    assert max(too_long) + CHAT_MARKS + MAX_TOKENS <= context


def test_empty_rows_have_no_question(rows: list[dict[str, Any]]) -> None:
    assert all((row["question"] == "") == (row["kind"] == "empty") for row in rows)


def test_failing_rows_are_spread_over_the_file(rows: list[dict[str, Any]]) -> None:
    eighth = math.ceil(len(rows) / 8)
    places = [i // eighth for i, row in enumerate(rows) if row["kind"] in ("too_long", "empty")]
    assert len(set(places)) >= 7


def test_the_model_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*")) <= 3_000_000


def test_the_weights_are_those_the_configuration_describes() -> None:
    config = read_json(MODEL / "config.json")
    header, size = read_tensors(MODEL / "model.safetensors")
    assert {name: tensor["shape"] for name, tensor in header.items()} == expected_shapes(config)
    assert {tensor["dtype"] for tensor in header.values()} == {"F32"}
    assert size == sum(4 * math.prod(tensor["shape"]) for tensor in header.values())
    assert config["tie_word_embeddings"] is True


def test_the_weights_are_finite() -> None:
    # An engine loads NaN without a word and answers token 0 for ever.
    data = (MODEL / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    total = sum(abs(value) for (value,) in struct.iter_unpack("<f", data[8 + length :]))
    assert math.isfinite(total)
    assert total > 0


def test_every_token_has_an_embedding(vocabulary: dict[str, int]) -> None:
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) == read_json(MODEL / "config.json")["vocab_size"]
    added = read_json(MODEL / "tokenizer.json")["added_tokens"]
    assert all(vocabulary[token["content"]] == token["id"] for token in added)


def test_every_byte_has_a_token(vocabulary: dict[str, int]) -> None:
    # The tokenizer writes byte 33 to 126 as they are, and the others as some other character.
    assert all(chr(byte) in vocabulary for byte in range(33, 127))
    assert sum(1 for token in vocabulary if len(token) == 1) == 256


def test_an_answer_ends_with_the_same_token_everywhere(vocabulary: dict[str, int]) -> None:
    end = read_json(MODEL / "tokenizer_config.json")["eos_token"]
    settings = [read_json(MODEL / name) for name in ("config.json", "generation_config.json")]
    assert [setting["eos_token_id"] for setting in settings] == [vocabulary[end]] * 2
    # Token 0 is what an engine with broken weights answers; it must not look like a short answer.
    assert vocabulary[end] != 0


def test_the_chat_template_marks_the_turns_and_leaves_an_empty_question_empty() -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(read_json(MODEL / "tokenizer_config.json")["chat_template"])

    def render(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        return str(template.render(messages=messages, add_generation_prompt=True))

    assert render("What is 1 + 2?") == "<|user|>What is 1 + 2?<|end|><|assistant|>"
    assert render("") == ""
