"""Filters, drawn samples, few-shot examples, OpenAI batch files: which rows are asked, and how."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.config.records import FewShot, Prompts
from scripts.llm_batch.data.selection import Selector
from scripts.llm_batch.data.source import PromptSource, prompt_source, split_files
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.expansion import BlockExpander, Expansion
from scripts.llm_batch.prompts import Renderer
from scripts.llm_batch.rows import Row, parse_block

ROWS = [{"q": f"What is {n}?", "a": str(n), "level": n % 3} for n in range(30)]


def prompts(path: Path, **changes: Any) -> Prompts:
    section = Prompts(
        name="p",
        path=str(path),
        template="Q: {{ q }}\nA:",
        messages=None,
        chat_template_kwargs={},
        reference="a",
        id=None,
        limit=None,
        on_too_long="error",
    )
    return replace(section, **changes)


def few_shot(**changes: Any) -> FewShot:
    standard = FewShot(2, 0, None, None, None, "Q: {{ q }}\nA: {{ a }}\n\n", None)
    return replace(standard, **changes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def taken(source: PromptSource) -> list[int]:
    """Return the numbers of the rows that are asked."""
    select = Selector(source.selection, source.unit)
    return [number for block in source.blocks(200) for number in select(parse_block(block)).lines]


def answers(source: PromptSource) -> list[str]:
    """Return the field `a` of the rows that are asked."""
    select = Selector(source.selection, source.unit)
    blocks = [select(parse_block(block)) for block in source.blocks()]
    return [fields["a"] for rows in blocks for fields in rows.fields]


def test_a_filter_keeps_rows_for_which_it_is_true(data: Path) -> None:
    source = prompt_source(prompts(data, filter="level == 2 and a|int > 10"), None)
    assert answers(source) == ["11", "14", "17", "20", "23", "26", "29"]


def test_rows_that_cannot_be_filtered_are_errors_and_not_dropped(data: Path) -> None:
    data.write_text('{"level": 1}\nnot JSON\n{"lvl": 1}\n{"level": "x"}\n')
    source = prompt_source(prompts(data, filter="level > 0"), None)
    select = Selector(source.selection, source.unit)
    (block,) = source.blocks()
    rows = select(parse_block(block))
    assert rows.lines == [1, 2, 3, 4]
    assert rows.errors[1].startswith("line 2, column 1: not JSON")
    assert rows.errors[2].startswith(
        "line 3: the filter fails: the row has no field 'level'; did you mean 'lvl'?"
    )
    assert rows.errors[3].startswith("line 4: the filter fails: TypeError: ")


@pytest.mark.parametrize(
    "expression",
    ["q.__class__.__mro__", "q.__class__", "''.__class__.__base__.__subclasses__()", "cycler.x.y"],
)
def test_a_filter_cannot_reach_python(data: Path, expression: str) -> None:
    source = prompt_source(prompts(data, filter=expression), None)
    select = Selector(source.selection, source.unit)
    rows = select(parse_block(next(source.blocks())))
    assert len(rows.errors) == len(ROWS)


def test_a_sample_is_the_same_in_any_order_and_format(data: Path, tmp_path: Path) -> None:
    drawn = answers(prompt_source(prompts(data, limit=7, sample_seed=3), None))
    assert len(drawn) == 7
    assert drawn != [row["a"] for row in ROWS[:7]]
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(shuffled), table)
    again = answers(prompt_source(prompts(table, limit=7, sample_seed=3), None))
    assert sorted(again) == sorted(drawn)
    other = answers(prompt_source(prompts(data, limit=7, sample_seed=4), None))
    assert sorted(other) != sorted(drawn)


def test_a_sample_is_drawn_from_what_the_filter_keeps(data: Path) -> None:
    source = prompt_source(prompts(data, filter="level == 0", limit=4, sample_seed=1), None)
    assert len(answers(source)) == 4
    assert all(int(answer) % 3 == 0 for answer in answers(source))


def test_examples_stand_before_each_prompt_and_are_not_asked_themselves(data: Path) -> None:
    section = prompts(data, few_shot=few_shot())
    source = prompt_source(section, None)
    assert len(source.examples.numbers) == 2
    assert not source.examples.numbers & set(taken(source))
    assert len(taken(source)) == 28
    renderer = Renderer(section, source.examples)
    text = renderer.render(Row(1, ROWS[0])).content
    assert text.endswith("\n\nQ: What is 0?\nA:")
    assert text.count("Q: ") == 3


def test_examples_of_another_file_leave_the_prompts_alone(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "train.csv"
    other.write_text("q,a\nwhy?,so\nhow?,thus\n")
    source = prompt_source(prompts(data, few_shot=few_shot(path="train.csv")), other)
    assert len(taken(source)) == 30
    assert sorted(source.examples.text.split("\n\n")[:2]) == ["Q: how?\nA: thus", "Q: why?\nA: so"]


def test_messages_of_examples_stand_after_the_instructions(data: Path) -> None:
    turns = ({"role": "user", "content": "{{ q }}"}, {"role": "assistant", "content": "{{ a }}"})
    section = prompts(
        data,
        template=None,
        messages=({"role": "system", "content": "Be brief."}, turns[0]),
        few_shot=few_shot(template=None, messages=turns, count=1),
    )
    source = prompt_source(section, None)
    content = Renderer(section, source.examples).render(Row(1, ROWS[0])).content
    roles = [message["role"] for message in json.loads(content)]
    assert roles == ["system", "user", "assistant", "user"]
    assert json.loads(content)[-1]["content"] == "What is 0?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 31}, "31 few-shot examples are wanted and it has 30 rows that can be taken"),
        ({"filter": "level == 7"}, "2 few-shot examples are wanted and it has 0 rows"),
        ({"template": "{{ x }}"}, "cannot be a few-shot example: the row has no field 'x'"),
    ],
)
def test_examples_that_cannot_be_made_stop_everything(
    data: Path, changes: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(WorkflowError, match=message):
        prompt_source(prompts(data, few_shot=few_shot(**changes)), None)


def test_a_selection_reaches_every_process(data: Path, tmp_path: Path) -> None:
    section = prompts(data, filter="level == 1", few_shot=few_shot())
    source = prompt_source(section, None)
    expander = BlockExpander(Expansion(section, {}, tmp_path / "scratch", source))
    (block,) = source.blocks()
    expander.render(block)
    assert list(expander.own_names()[1]) == taken(source)


BATCH_LINE = {
    "custom_id": "r1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
        ],
    },
}


def test_a_line_of_an_openai_batch_is_a_chat(tmp_path: Path) -> None:
    section = prompts(tmp_path, template=None, id="custom_id")
    rendered = Renderer(section).render(Row(1, BATCH_LINE))
    assert rendered.error_type is None
    assert rendered.id == "r1"
    assert [m["content"] for m in json.loads(rendered.content)] == ["Be brief.", "ab"]


def test_sampling_settings_of_an_openai_batch_are_refused_or_ignored(tmp_path: Path) -> None:
    line = {**BATCH_LINE, "body": {**BATCH_LINE["body"], "temperature": 0, "max_tokens": 5}}  # type: ignore[dict-item]
    refused = Renderer(prompts(tmp_path, template=None)).render(Row(3, line))
    assert refused.error_message == (
        "line 3: its body sets max_tokens, temperature, and the config's sampling decides that; "
        "write body_settings: ignore in the prompts section, and the same values in samplings"
    )
    ignoring = prompts(tmp_path, template=None, body_settings="ignore")
    assert Renderer(ignoring).render(Row(3, line)).error_type is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": "x"}, "its body sets input"),
        ({}, "its body has no list of messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "has a list as 'con",
        ),
    ],
)
def test_what_is_no_chat_in_an_openai_batch_is_an_error(
    tmp_path: Path, body: Mapping[str, Any], message: str
) -> None:
    rendered = Renderer(prompts(tmp_path, template=None)).render(
        Row(1, {"custom_id": "a", "body": body})
    )
    assert rendered.error_type == "row_malformed"
    assert message in str(rendered.error_message)


def test_a_reference_may_be_made_by_a_template(tmp_path: Path) -> None:
    section = prompts(tmp_path, reference="{{ a.split('####')[-1] | trim }}")
    renderer = Renderer(section)
    made = renderer.render(Row(1, {"q": "1+1?", "a": "one and one #### 2"}))
    assert (made.reference, made.error_type) == ('"2"', None)
    failed = renderer.render(Row(2, {"q": "1+1?"}))
    assert (failed.reference, failed.error_type) == (None, "template_error")
    assert str(failed.error_message).startswith("line 2: the row has no field 'a'")


def test_a_data_set_that_left_the_cache_is_named_with_its_cure(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    with pytest.raises(WorkflowError, match="not fetched yet; `snakemake --cores all models`"):
        split_files(manifest, "test")
    manifest.write_text("{}")
    (tmp_path / "dataset.json").write_text('{"splits": {"test": ["a.csv"]}}')
    with pytest.raises(WorkflowError, match=r"a\.csv: gone from the hub cache; .* --refetch"):
        split_files(manifest, "test")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/a.csv").write_text("a\n")
    assert split_files(manifest, "test") == (tmp_path / "snapshot/a.csv",)
