"""Where the rows of a prompts section come from, and which of them are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.llm_batch.addresses import read_json
from scripts.llm_batch.config.records import Prompts
from scripts.llm_batch.data.few_shot import NO_EXAMPLES, Examples, make_examples
from scripts.llm_batch.data.formats import LINE_FORMATS, data_format
from scripts.llm_batch.data.selection import Selection, Selector, draw_rows
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.rows import BLOCK_BYTES, Block, read_blocks, read_files

DATA_SET = "dataset.json"
"""Lists the files of each split, beside the manifest of a fetched data set."""


@dataclass(frozen=True)
class PromptSource:
    """The files of a prompts section, the rows that are taken, and the examples before them."""

    files: tuple[Path, ...]
    selection: Selection = field(default_factory=Selection)
    examples: Examples = NO_EXAMPLES

    @property
    def unit(self) -> str:
        """What a number in an error counts: lines of one file, or rows."""
        return unit_of(self.files)

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[Block]:
        """Yield the rows as lines of JSON; raises `WorkflowError`."""
        return blocks_of(self.files, size)


def blocks_of(files: Sequence[Path], size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the rows of files, numbered through, as lines of JSON; raises `WorkflowError`."""
    return read_blocks(files[0], size) if len(files) == 1 else read_files(files, size)


def unit_of(files: Sequence[Path]) -> str:
    """Return what the number of a row counts in these files."""
    return "line" if len(files) == 1 and data_format(files[0]) in LINE_FORMATS else "row"


def split_files(path: Path, split: str | None) -> tuple[Path, ...]:
    """Return the files that `path` stands for: itself, or those of a split of a fetched data set.

    A data set is named by its manifest. Raises `WorkflowError` if it is not fetched.
    """
    if split is None:
        return (path,)
    listing = path.with_name(DATA_SET)
    if not path.is_file() or not listing.is_file():
        raise WorkflowError(
            f"{path.parent}: not fetched yet; `snakemake --cores all models` fetches it"
        )
    names = read_json(listing)["splits"][split]
    files = tuple(path.with_name("snapshot") / name for name in names)
    gone = [file for file in files if not file.is_file()]
    if gone:
        raise WorkflowError(
            f"{gone[0]}: gone from the hub cache; `python -m scripts.verify --refetch` brings it "
            "back"
        )
    return files


def prompt_source(prompts: Prompts, few_shot_path: Path | None) -> PromptSource:
    """Return the source of a section: examples and a sample are drawn here; raises `WorkflowError`.

    `few_shot_path` is a file of its own for the examples.
    """
    path, data_set, few_shot = Path(prompts.path), prompts.data_set, prompts.few_shot
    files = split_files(path, split_name(data_set.split) if data_set else None)
    examples, excluded = NO_EXAMPLES, frozenset[int]()
    if few_shot is not None:
        own = few_shot_path is None and few_shot.split is None
        others = files
        if few_shot_path is not None:
            others = (few_shot_path,)
        elif few_shot.split is not None:
            others = split_files(path, few_shot.split)
        name = str(others[0])
        examples = make_examples(few_shot, blocks_of(others), name, unit_of(others))
        # A prompt that shows its own answer would be no question.
        excluded = examples.numbers if own else excluded
    selection = Selection(prompts.filter, None, excluded)
    if prompts.sample_seed is not None and prompts.limit is not None:
        selector = Selector(selection, unit_of(files))
        drawn = draw_rows(blocks_of(files), selector, prompts.limit, prompts.sample_seed, "sample")
        selection = Selection(prompts.filter, frozenset(row.number for row in drawn), excluded)
    return PromptSource(files, selection, examples)


def split_name(split: str | None) -> str:
    """Return the name under which a split is listed; `all` if the config names only files."""
    return split or "all"
