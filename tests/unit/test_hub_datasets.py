"""Which files of a data set hold a split: as cards say, or as names do."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.hub.datasets import choose_splits

GSM8K = [
    ".gitattributes", "README.md", "main/test-00000-of-00001.parquet",
    "main/train-00000-of-00001.parquet", "socratic/test-00000-of-00001.parquet",
    "socratic/train-00000-of-00001.parquet",
]  # fmt: skip
GSM8K_CARD = {
    "configs": [
        {
            "config_name": name,
            "data_files": [
                {"split": "train", "path": f"{name}/train-*"},
                {"split": "test", "path": f"{name}/test-*"},
            ],
        }
        for name in ("main", "socratic")
    ]
}
NAMED = ["data/train.jsonl", "data/dev.jsonl", "data/eval-01.jsonl", "data/eval-02.jsonl"]


@pytest.mark.parametrize(
    ("paths", "card", "config", "splits", "expected"),
    [
        (
            GSM8K,
            GSM8K_CARD,
            "main",
            ["test", "train"],
            {
                "test": ["main/test-00000-of-00001.parquet"],
                "train": ["main/train-00000-of-00001.parquet"],
            },
        ),
        (GSM8K, {}, "socratic", ["test"], {"test": ["socratic/test-00000-of-00001.parquet"]}),
        (NAMED, {}, None, ["validation"], {"validation": ["data/dev.jsonl"]}),
        (NAMED, {}, None, ["test"], {"test": ["data/eval-01.jsonl", "data/eval-02.jsonl"]}),
        (["questions.csv"], {}, None, None, {"all": ["questions.csv"]}),
        (["questions.csv"], {}, None, ["train"], {"train": ["questions.csv"]}),
        (
            ["a.csv", "b/x.csv", "b/y.csv"],
            {"configs": [{"config_name": "default", "data_files": "b/*.csv"}]},
            None,
            None,
            {"all": ["b/x.csv", "b/y.csv"]},
        ),
        (
            ["d/train.csv", "d/test.csv"],
            {"configs": [{"data_dir": "d", "data_files": {"test": "test.csv"}}]},
            None,
            ["test"],
            {"test": ["d/test.csv"]},
        ),
        (
            ["x/deep/er/a.parquet"],
            {"configs": [{"data_files": [{"split": "s", "path": ["x/**/*.parquet"]}]}]},
            None,
            ["s"],
            {"s": ["x/deep/er/a.parquet"]},
        ),
    ],
)
def test_a_split_is_the_files_that_card_or_names_say(
    paths: list[str],
    card: dict[str, Any],
    config: str | None,
    splits: list[str] | None,
    expected: dict[str, list[str]],
) -> None:
    assert choose_splits(paths, card, config, splits) == expected


@pytest.mark.parametrize(
    ("paths", "card", "config", "splits", "message"),
    [
        (GSM8K, GSM8K_CARD, None, ["test"], r"several configs; add config: one of 'main', 'socr"),
        (GSM8K, GSM8K_CARD, "mian", ["test"], "no config 'mian'; take one of 'main', 'socratic'"),
        (GSM8K, GSM8K_CARD, "main", None, "several splits; add split: one of 'train', 'test'"),
        (GSM8K, GSM8K_CARD, "main", ["dev"], "no split 'dev'; take one of 'train', 'test'"),
        (GSM8K, {}, "other", ["test"], "no config 'other'; folders there are 'main', 'socratic'"),
        (["load.py", "README.md"], {}, None, None, "maybe only a script.*refs/convert/parquet"),
        (["a.csv", "a.parquet"], {}, None, None, r"\.csv and \.parquet files for 'all'"),
    ],
)
def test_what_cannot_be_chosen_is_told_with_what_can(
    paths: list[str],
    card: dict[str, Any],
    config: str | None,
    splits: list[str] | None,
    message: str,
) -> None:
    with pytest.raises(WorkflowError, match=message):
        choose_splits(paths, card, config, splits)


def test_patterns_choose_files_by_name() -> None:
    chosen = choose_splits(GSM8K, GSM8K_CARD, None, None, ["*/test-*"])
    assert chosen == {"all": [path for path in GSM8K if "/test-" in path]}
    with pytest.raises(WorkflowError, match=r"no data file matches '\*\.csv' of `files`"):
        choose_splits(GSM8K, {}, None, None, ["*.csv"])
