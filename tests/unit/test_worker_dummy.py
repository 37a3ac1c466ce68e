"""The dummy engine: the same answers under any schedule, and the faults it is told to have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.worker.dummy_engine import DummyEngine, token_ids
from scripts.worker.engine import Finished, RequestError
from scripts.worker.settings import Settings


def make(args: dict[str, Any] | None = None, start: int = 0, **dummy: Any) -> DummyEngine:
    values: dict[str, Any] = dict.fromkeys(Settings.__dataclass_fields__, "")
    values.update(args=args or {}, dummy=dummy, start=start)
    return DummyEngine(Settings(**values))


def request(number: int, text: str | None = None, max_tokens: int = 64) -> dict[str, Any]:
    return {
        "prompt": {"text": text or f"question {number % 7}"},
        "sampling": {"temperature": 0.7, "seed": number},
        "max_tokens": max_tokens,
        "on_too_long": "error",
    }


def answer_all(engine: DummyEngine, order: list[int], sizes: list[int]) -> dict[str, Finished]:
    """Add requests in `order`, in groups of `sizes`, with a step after each group."""
    finished: dict[str, Finished] = {}
    waiting, held = list(order), 0
    sizes = [*sizes, len(order)]
    while waiting or held:
        group = [waiting.pop(0) for _ in range(min(sizes.pop(0) if sizes else 1, len(waiting)))]
        for number in group:
            prepared = engine.prepare([request(number)])[0]
            assert not isinstance(prepared, RequestError)
            engine.add(str(number), prepared)
            held += 1
        if held:
            done = engine.step()
            held -= len(done)
            finished.update({item.request_id: item for item in done})
    return finished


REFERENCE = answer_all(make(), list(range(40)), [])


@settings(max_examples=300, deadline=None)
@given(
    order=st.permutations(range(40)),
    sizes=st.lists(st.integers(1, 12), max_size=20),
    max_num_seqs=st.integers(1, 50),
)
def test_answers_do_not_depend_on_the_schedule(
    order: list[int], sizes: list[int], max_num_seqs: int
) -> None:
    assert answer_all(make({"max_num_seqs": max_num_seqs}), order, sizes) == REFERENCE


def test_answers_depend_on_prompt_and_seed() -> None:
    texts = {item.text for item in REFERENCE.values()}
    assert len(texts) == len(REFERENCE)


def test_lengths_lie_around_the_mean_and_below_the_limit() -> None:
    engine = make(length=100)
    ids = [engine.prepare([request(n, max_tokens=120)])[0] for n in range(200)]
    lengths = [len(item.token_ids) for item in ids if not isinstance(item, RequestError)]
    assert 90 < sum(lengths) / len(lengths) < 105
    assert min(lengths) >= 50
    assert max(lengths) == 120


def test_tokens_go_on_beyond_one_digest() -> None:
    long = token_ids(b"\x05" * 64, b"content", 200)
    assert len(long) == 200
    assert long[:64] == [5] * 64
    assert token_ids(b"\x05" * 64, b"content", 100) == long[:100]


def test_the_first_starts_can_fail_for_want_of_memory() -> None:
    with pytest.raises(MemoryError):
        make(start=1, out_of_memory_starts=2)
    assert make(start=2, out_of_memory_starts=2).max_num_seqs == 256


@pytest.mark.parametrize(
    ("prompt", "kind"), [({"text": " "}, "prompt_empty"), ({"text": "a b c d"}, "prompt_too_long")]
)
def test_it_refuses_what_a_real_engine_refuses(prompt: dict[str, str], kind: str) -> None:
    result = make({"max_model_len": 4}).prepare([{**request(0), "prompt": prompt}])[0]
    assert isinstance(result, RequestError)
    assert result.kind == kind


def test_chat_is_rendered() -> None:
    messages = {"messages": [{"role": "user", "content": "hi there"}], "chat_template_kwargs": {}}
    prepared = make().prepare([{**request(0), "prompt": messages}])[0]
    assert not isinstance(prepared, RequestError)
    assert prepared.rendered == "<user> hi there\n<assistant>"
