"""Measure the quickstart's model with vLLM: the figures of its model card.

In both forms: greedy answers to every held-out problem, then greedy answers and answers at three
temperatures to the good rows of the prompts file, with vLLM as the environment `cpu` has it:

    results/environments/cpu-*/bin/python -m scripts.measure_quickstart_model --output measured.json
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import read_json, write_json_atomic
from scripts.llm_batch.errors import run_cli
from scripts.make_quickstart_prompts import KINDS, Problem, digest, held_out_problems

LOG = logging.getLogger(__name__)

FORMS = ("chat", "plain")
TEMPERATURES = (0.7, 1.0, 1.5)
SAMPLES = 4
CONTEXT = 64
MAX_TOKENS = 16

# The answers to a request must not depend on its neighbours; as the workflow sets them itself.
SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_ATTN_SPLIT_KV": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Question:
    """A prompt as the engine gets it, and the text that is right."""

    prompt: str
    answer: str


def render(template: Any, problem: Problem, form: str) -> Question:
    """Return the problem in one of `FORMS`; `template` is the model's chat template, compiled."""
    if form == "plain":
        return Question(f"{problem.a}{problem.op}{problem.b}=", problem.answer)
    messages = [{"role": "user", "content": problem.question}]
    return Question(template(messages), problem.answer)


def accuracy(answers: Sequence[Sequence[bool]]) -> float:
    """The mean over problems of the part of their samples that is right."""
    return sum(sum(samples) / len(samples) for samples in answers) / len(answers)


def any_right(answers: Sequence[Sequence[bool]]) -> float:
    """The part of the problems with a right answer among all their samples: pass@`SAMPLES`."""
    return sum(any(samples) for samples in answers) / len(answers)


def load_engine(model: Path) -> Any:
    """Start vLLM in this process, in float32."""
    os.environ.update(SWITCHES)
    # After the switches, which it reads when it is imported.
    import vllm  # type: ignore[import-not-found, unused-ignore]

    return vllm.LLM(
        model=str(model),
        dtype="float32",
        max_model_len=CONTEXT,
        max_num_seqs=256,
        max_num_batched_tokens=4096,
        enable_chunked_prefill=False,
        enforce_eager=True,
        kv_cache_memory_bytes=256 << 20,
        seed=0,
    )


def answer(engine: Any, questions: Sequence[Question], temperature: float) -> list[list[bool]]:
    """Ask every question, once if greedy, and say which samples are exactly right and ended."""
    from vllm import SamplingParams

    samples = SAMPLES if temperature else 1
    asked = [(question, i) for question in questions for i in range(samples)]
    settings = [
        SamplingParams(
            temperature=temperature,
            max_tokens=MAX_TOKENS,
            seed=digest(f"{i} {question.prompt}") >> 1 if temperature else None,
        )
        for question, i in asked
    ]
    outputs = engine.generate([question.prompt for question, _ in asked], settings, use_tqdm=False)
    right = [
        output.outputs[0].text == question.answer and output.outputs[0].finish_reason == "stop"
        for (question, _), output in zip(asked, outputs, strict=True)
    ]
    return [right[i : i + samples] for i in range(0, len(right), samples)]


def measure(engine: Any, prompts: Path) -> list[dict[str, Any]]:
    """Return one record a form and temperature; greedy and seeded requests are never mixed."""
    rows = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    good = [Problem(r["a"], r["op"], r["b"]) for r in rows if r["kind"] in KINDS.values()]
    asked = [(0.0, held_out_problems()), *((t, good) for t in (0.0, *TEMPERATURES))]
    tokenizer = engine.get_tokenizer()

    def template(messages: list[dict[str, str]]) -> Any:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    records = []
    for form in FORMS:
        for temperature, problems in asked:
            questions = [render(template, problem, form) for problem in problems]
            answers = answer(engine, questions, temperature)
            record = {
                "form": form,
                "temperature": temperature,
                "problems": len(problems),
                "samples": len(answers[0]),
                "accuracy": round(accuracy(answers), 4),
                "any_right": round(any_right(answers), 4),
            }
            LOG.info("%s", record)
            records.append(record)
    return records


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the quickstart's model with vLLM.")
    home = Path("config/quickstart")
    parser.add_argument("--model", type=Path, default=home / "model", help="default: %(default)s")
    parser.add_argument(
        "--prompts", type=Path, default=home / "prompts.jsonl", help="default: %(default)s"
    )
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the records."""
    arguments = build_parser().parse_args(argv)
    read_json(arguments.model / "config.json")
    write_json_atomic(arguments.output, measure(load_engine(arguments.model), arguments.prompts))
    return 0


if __name__ == "__main__":
    run_cli(main)
