"""Train the quickstart's model: a Llama of 0.6 million parameters that adds and subtracts.

It learns the problems that `scripts.make_quickstart_prompts` does not hold out, in two forms:
as a chat ("What is 47 + 38?" -> "85") and as a plain completion ("47+38=" -> "85").
The engine's environment `cpu` has all that is needed, in locked versions:

    snakemake --cores all environments
    results/environments/cpu-*/bin/python -m scripts.train_quickstart_model

The run is deterministic: fixed seeds, fixed thread count, deterministic algorithms. Expect the
same bytes only from the same build of PyTorch on the same kind of CPU; elsewhere sums are taken
in another order and the weights differ in their last digits, then in more.
"""

import argparse
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch  # type: ignore[import-not-found, unused-ignore]
from safetensors.torch import save_file  # type: ignore[import-not-found, unused-ignore]
from tokenizers import (  # type: ignore[import-not-found, unused-ignore]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
)
from transformers import (  # type: ignore[import-not-found, unused-ignore]
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from scripts.llm_batch.addresses import atomic_path, write_json_atomic
from scripts.llm_batch.errors import run_cli
from scripts.make_quickstart_prompts import Problem, all_problems, is_held_out

LOG = logging.getLogger(__name__)

# Id 0 is never an answer: an engine with broken weights tends to write it, and that should show.
PAD, END = "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
CONTEXT = 256

# A conversation without any text renders to nothing, so that an empty question is an error.
CHAT_TEMPLATE = (
    "{%- for message in messages if message['content'] | trim -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- if loop.last and add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
    "{%- endfor -%}"
)

# A form that is listed twice is seen twice as often; the first one is measured.
PLAIN_FORMS = ("{a}{op}{b}=", "{a}{op}{b}=", "{a} {op} {b} =", "{a} {op} {b} = ")
CHAT_FORMS = (
    "What is {a} {op} {b}?",
    "What is {a} {op} {b}?",
    "What is {a} {op} {b}?",
    "what is {a}{op}{b}?",
    "How much is {a} {op} {b}?",
    "Calculate {a} {op} {b}.",
    "{a} {op} {b} = ?",
    "{a} {op} {b}",
    "{a}{op}{b}",
)
IGNORED = -100
"""The label of a position where nothing is to be predicted."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the data and the library versions."""

    layers: int = 3
    width: int = 128
    inner_width: int = 320
    head_width: int = 32
    steps: int = 600
    warmup_steps: int = 100
    plain_batch: int = 192
    chat_batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    # Without it the model is surer of itself than a demonstration of sampling can use.
    label_smoothing: float = 0.03
    seed: int = 0
    threads: int = 2


class Examples(NamedTuple):
    """Problems in one form: both tensors are (problems, tokens) and padded on the right."""

    inputs: torch.Tensor
    labels: torch.Tensor


def model_config(recipe: Recipe) -> dict[str, Any]:
    """The contents of `config.json`, in the keys that old and new versions of vLLM both read."""
    heads = recipe.width // recipe.head_width
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(SPECIAL_TOKENS) + 256,
        "hidden_size": recipe.width,
        "intermediate_size": recipe.inner_width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": recipe.head_width,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": SPECIAL_TOKENS.index(END),
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
        "torch_dtype": "float32",
    }


def write_description(folder: Path, recipe: Recipe) -> None:
    """Write all files of the model folder but the weights: configuration and tokenizer."""
    config = model_config(recipe)
    ends = {key: config[key] for key in ("eos_token_id", "pad_token_id")}
    write_json_atomic(folder / "config.json", config)
    write_json_atomic(folder / "generation_config.json", ends)
    write_json_atomic(folder / "tokenizer_config.json", tokenizer_config())
    write_json_atomic(folder / "tokenizer.json", json.loads(byte_tokenizer().to_str()))


def byte_tokenizer() -> Tokenizer:
    """A tokenizer with one token a byte: no text is unknown to it, and digits stay apart."""
    symbols = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def tokenizer_config() -> dict[str, Any]:
    """The contents of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }


def encode(problems: Sequence[Problem], form: str, chat: bool, tokenizer: Any) -> Examples:
    """Return next-token examples in which only the answer and the end token are labelled."""
    texts = [form.format(a=p.a, op=p.op, b=p.b) for p in problems]
    if chat:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for text in texts
        ]
    prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    answers = tokenizer([p.answer + END for p in problems], add_special_tokens=False)["input_ids"]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) - 1
    inputs = torch.full((len(problems), length), SPECIAL_TOKENS.index(PAD))
    labels = torch.full((len(problems), length), IGNORED)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer) - 1
        inputs[i, :end] = torch.tensor((prompt + answer)[:-1])
        labels[i, len(prompt) - 1 : end] = torch.tensor(answer)
    return Examples(inputs, labels)


def answer_logits(model: Any, examples: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (positions, vocabulary) and the labels (positions) of labelled tokens."""
    # Padding on the right needs no mask: attention is causal.
    hidden = model.model(input_ids=examples.inputs, use_cache=False).last_hidden_state
    labelled = examples.labels != IGNORED
    return model.lm_head(hidden[labelled]), examples.labels[labelled]


def greedy_accuracy(model: Any, examples: Examples) -> float:
    """The part of the problems whose every answer token, and the end, is the likeliest one."""
    wrong = 0
    for inputs, labels in zip(*(tensor.split(1024) for tensor in examples), strict=True):
        with torch.no_grad():
            logits, answers = answer_logits(model, Examples(inputs, labels))
        errors = torch.zeros_like(labels, dtype=torch.bool)
        errors[labels != IGNORED] = logits.argmax(-1) != answers
        wrong += int(errors.any(dim=1).sum())
    return 1 - wrong / len(examples.inputs)


def smoothed_loss(
    logits: torch.Tensor, labels: torch.Tensor, alphabet: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Cross entropy with label smoothing (Szegedy et al. 2016), over `alphabet` only.

    Smoothing over the whole vocabulary would teach the model to answer in letters.
    """
    scores = torch.log_softmax(logits, dim=-1)
    right = scores.gather(1, labels[:, None])[:, 0]
    return -((1 - smoothing) * right + smoothing * scores[:, alphabet].mean(dim=1)).mean()


def optimizers(model: Any, recipe: Recipe) -> list[Any]:
    """Muon (Jordan 2024) for the matrices of the layers, Adam for embedding and norms.

    In trials, Adam alone was right on 46 % after 1000 steps; with Muon it was 96 % after 600.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            matrices,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    cosine = (1 + math.cos(math.pi * step / recipe.steps)) / 2
    return recipe.learning_rate * warm * (0.02 + 0.98 * cosine)


def draw(forms: Sequence[Examples], rows: torch.Tensor, generator: torch.Generator) -> Examples:
    """Return the given rows of a form chosen by chance."""
    form = forms[int(torch.randint(len(forms), (1,), generator=generator))]
    return Examples(form.inputs[rows], form.labels[rows])


def train(
    model: Any, plain: Sequence[Examples], chat: Sequence[Examples], recipe: Recipe, tokenizer: Any
) -> None:
    """Train `model` in place; a step sees `plain_batch` plain and `chat_batch` chat examples."""
    chance = torch.Generator().manual_seed(recipe.seed)
    alphabet = torch.tensor(tokenizer.encode("-0123456789" + END, add_special_tokens=False))
    steppers = optimizers(model, recipe)
    started = time.monotonic()
    for step in range(recipe.steps):
        for group in (group for stepper in steppers for group in stepper.param_groups):
            group["lr"] = learning_rate(recipe, step)
        size = recipe.plain_batch + recipe.chat_batch
        rows = torch.randint(len(plain[0].inputs), (size,), generator=chance)
        parts = [
            answer_logits(model, draw(plain, rows[: recipe.plain_batch], chance)),
            answer_logits(model, draw(chat, rows[recipe.plain_batch :], chance)),
        ]
        logits, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        loss = smoothed_loss(logits, labels, alphabet, recipe.label_smoothing)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        if (step + 1) % 50 == 0:
            LOG.info(
                "step %d loss %.4f (%.0f s)", step + 1, loss.item(), time.monotonic() - started
            )


def write_weights(model: Any, path: Path) -> None:
    """Write the weights as float32; the output matrix is the embedding and not written twice."""
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; no reader meets a folder that is half written."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def build(folder: Path, recipe: Recipe) -> None:
    """Train the model, report its accuracy and write everything into the empty `folder`."""
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    write_description(folder, recipe)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).to(torch.float32)
    LOG.info("%d parameters", sum(p.numel() for p in model.parameters()))
    seen = [p for p in all_problems() if not is_held_out(p)]
    unseen = [p for p in all_problems() if is_held_out(p)]
    plain = [encode(seen, form, False, tokenizer) for form in PLAIN_FORMS]
    chat = [encode(seen, form, True, tokenizer) for form in CHAT_FORMS]
    train(model, plain, chat, recipe, tokenizer)
    for name, trained, form in (("plain", plain, PLAIN_FORMS[0]), ("chat", chat, CHAT_FORMS[0])):
        held_out = encode(unseen, form, name == "chat", tokenizer)
        LOG.info(
            "%s, greedy accuracy: %.4f of %d trained problems, %.4f of %d held-out problems",
            *(name, greedy_accuracy(model, trained[0]), len(seen)),
            *(greedy_accuracy(model, held_out), len(unseen)),
        )
    write_weights(model, folder / "model.safetensors")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the quickstart's model.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("config/quickstart/model"),
        help="the folder to write; an old one is replaced at the end (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=Recipe.steps, help="training steps (default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train into a temporary folder, then put it in place."""
    arguments = build_parser().parse_args(argv)
    target: Path = arguments.output
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        build(temporary, Recipe(steps=arguments.steps))
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    LOG.info("%s: written", target)
    return 0


if __name__ == "__main__":
    run_cli(main)
