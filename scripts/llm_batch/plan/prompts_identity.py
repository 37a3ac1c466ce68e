"""What decides prompts: the identity of a section, and the section read back from an identity.

Both directions stand here side by side, because `shard_prompts` is told identities only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.build import data_set_of, few_shot_of
from scripts.llm_batch.config.records import DataSet, FewShot, Prompts
from scripts.llm_batch.digests import DigestMemo


def prompts_identity(
    prompts: Prompts, memo: DigestMemo, judged: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what decides the prompts: where the rows come from and how they become prompts.

    `judged` are the addresses of the runs whose completions are the rows; else it is a file, or a
    data set of the hub.
    """
    identity = {
        **_rows_identity(prompts, memo, judged),
        "filter": prompts.filter,
        "few_shot": _few_shot_identity(prompts.few_shot, memo) if prompts.few_shot else None,
        "sample_seed": prompts.sample_seed,
        "body_settings": None if prompts.body_settings == "refuse" else prompts.body_settings,
        "template": prompts.template,
        "messages": list(prompts.messages) if prompts.messages is not None else None,
        "chat_template_kwargs": dict(prompts.chat_template_kwargs) or None,
        "reference": prompts.reference,
        "id": prompts.id,
        "limit": prompts.limit,
        "on_too_long": None if prompts.on_too_long == "error" else prompts.on_too_long,
    }
    return without_none(identity)


def _rows_identity(prompts: Prompts, memo: DigestMemo, judged: Sequence[str]) -> dict[str, Any]:
    if judged:
        return {"from_runs": list(judged)}
    if prompts.data_set is not None:
        return data_set_identity(prompts.data_set)
    return _data_identity(prompts.path, memo)


def _data_identity(name: str, memo: DigestMemo) -> dict[str, Any]:
    path = Path(name)
    compressed = path.suffix in {".gz", ".zst"}
    return {
        "data": memo.sha256(path),
        "format": "".join(path.suffixes[-2:]) if compressed else path.suffix,
    }


def data_set_identity(data_set: DataSet) -> dict[str, Any]:
    """Return what decides the rows of a data set of the hub."""
    identity = {
        "dataset": data_set.repo,
        "revision": data_set.revision,
        "config": data_set.config,
        "split": data_set.split,
        "files": list(data_set.files) if data_set.files else None,
    }
    return without_none(identity)


def _few_shot_identity(few_shot: FewShot, memo: DigestMemo) -> dict[str, Any]:
    identity = {
        **(_data_identity(few_shot.path, memo) if few_shot.path else {}),
        "count": few_shot.count,
        "seed": few_shot.seed,
        "split": few_shot.split,
        "filter": few_shot.filter,
        "template": few_shot.template,
        "messages": list(few_shot.messages) if few_shot.messages is not None else None,
    }
    return without_none(identity)


def without_none(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without what is not set: a new key must not move old addresses."""
    return {key: value for key, value in identity.items() if value is not None}


def prompts_of(path: Path, identity: Mapping[str, Any]) -> Prompts:
    """Return the prompts section that `identity` was made from; `path` holds its rows."""
    lm_eval = identity.get("lm_eval")
    messages, few_shot = identity.get("messages"), identity.get("few_shot")
    return Prompts(
        name=path.stem,
        path=str(path),
        template=identity.get("template"),
        messages=tuple(messages) if messages is not None else None,
        reference=identity.get("reference") if lm_eval is None else "target",
        id=identity.get("id") if lm_eval is None else "id",
        # A task's limit counts documents: the harness has left out what is beyond it.
        limit=identity.get("limit") if lm_eval is None else None,
        on_too_long=identity.get("on_too_long", "error"),
        chat_template_kwargs=identity.get("chat_template_kwargs", {}),
        data_set=data_set_of(identity) if "dataset" in identity else None,
        filter=identity.get("filter"),
        sample_seed=identity.get("sample_seed"),
        few_shot=few_shot_of(few_shot) if few_shot is not None else None,
        body_settings=identity.get("body_settings", "refuse"),
        lm_eval=lm_eval,
    )
