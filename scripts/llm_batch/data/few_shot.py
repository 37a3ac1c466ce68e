"""Few-shot examples: rows drawn once with a fixed seed, rendered, and put before every prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scripts.llm_batch.config.records import FewShot
from scripts.llm_batch.data.selection import Selection, Selector, draw_rows
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.rows import Block
from scripts.llm_batch.templates import PromptTemplate, TemplateFailure


@dataclass(frozen=True)
class Examples:
    """Examples as they stand before a prompt: text, or messages; and the rows that they are."""

    text: str
    messages: tuple[dict[str, str], ...]
    numbers: frozenset[int]


NO_EXAMPLES = Examples("", (), frozenset())


def make_examples(few_shot: FewShot, blocks: Iterable[Block], source: str, unit: str) -> Examples:
    """Return the examples that `few_shot` draws from the rows of `blocks`.

    Raises `WorkflowError` if there are too few rows, or one cannot be rendered.
    """
    selector = Selector(Selection(few_shot.filter), unit)
    drawn = draw_rows(blocks, selector, few_shot.count, few_shot.seed, "few-shot")
    if len(drawn) < few_shot.count:
        raise WorkflowError(
            f"{source}: {few_shot.count} few-shot examples are wanted and it has {len(drawn)} rows "
            "that can be taken; ask for fewer"
        )
    text = None if few_shot.template is None else PromptTemplate(few_shot.template)
    turns = [(m["role"], PromptTemplate(m["content"])) for m in few_shot.messages or ()]
    texts: list[str] = []
    messages: list[dict[str, str]] = []
    for row in drawn:
        try:
            if text is not None:
                texts.append(text.render(row.fields))
            messages += [{"role": role, "content": turn.render(row.fields)} for role, turn in turns]
        except TemplateFailure as failure:
            raise WorkflowError(
                f"{source}: {unit} {row.number} cannot be a few-shot example: {failure}"
            ) from None
    return Examples("".join(texts), tuple(messages), frozenset(row.number for row in drawn))
