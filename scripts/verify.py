"""Read every byte again: are models, adapters and data sets still what was fetched?

    python -m scripts.verify                all models, adapters and data sets of results/
    python -m scripts.verify --manifests    every file that a manifest in results/ lists, too
    python -m scripts.verify --refetch      damaged or missing files come from the hub again

Prints a line for each file that is wrong, and one for each folder; exits with 1 if any is left.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from scripts.fetch_model import MEMO, link_files, pinned_source
from scripts.llm_batch.addresses import file_sha256, read_json
from scripts.llm_batch.digests import DigestMemo
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.hub.download import forget
from scripts.llm_batch.hub.models import known_files
from scripts.llm_batch.hub.problems import explained, quiet_client

log = logging.getLogger(__name__)

LISTS: Mapping[str, str] = {
    "models": "model.json",
    "adapters": "adapter.json",
    "datasets": "dataset.json",
}
"""Stages whose files lie elsewhere, and the file that lists them."""

THREADS = 4
"""More files at a time would make a disk slower, not faster."""


class Wrong(NamedTuple):
    """A file that is not what it should be, and how."""

    path: Path
    how: str


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="the results folder")
    parser.add_argument("--manifests", action="store_true", help="check all stages' files, too")
    parser.add_argument("--refetch", action="store_true", help="fetch what is damaged again")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything asked for; 0 if all is well in the end."""
    arguments = build_parser().parse_args(argv)
    results: Path = arguments.results
    if not results.is_dir():
        raise WorkflowError(f"{results}: no such folder; call this where snakemake was called")
    quiet_client()
    left = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for folder in fetched_folders(results):
            wrong = list(told(folder, check_fetched(folder, pool)))
            if wrong and arguments.refetch:
                wrong = list(told(folder, refetch(folder, wrong, pool)))
            left += len(wrong)
        if arguments.manifests:
            for manifest in sorted(results.glob("*/*/manifest.json")):
                left += len(list(told(manifest.parent, check_manifest(manifest, pool))))
    if left and not arguments.refetch:
        print("`python -m scripts.verify --refetch` fetches again what came from the hub")
    return 1 if left else 0


def fetched_folders(results: Path) -> list[Path]:
    """Return the stage folders of models and adapters that are complete."""
    folders = [path.parent for stage in LISTS for path in results.glob(f"{stage}/*/manifest.json")]
    return sorted(folders)


def told(folder: Path, wrong: Sequence[Wrong]) -> Iterator[Wrong]:
    """Print what is wrong in a folder, or that nothing is; yield it again."""
    for found in wrong:
        print(f"{found.path}: {found.how}", flush=True)
        yield found
    print(f"{folder}: {f'{len(wrong)} files wrong' if wrong else 'ok'}", flush=True)


def check_fetched(folder: Path, pool: ThreadPoolExecutor) -> list[Wrong]:
    """Return the files of a model or adapter that are missing or have other bytes."""
    description = read_json(folder / LISTS[folder.parent.name])
    # Files that were written here stand before those of the source with the same name.
    entries = {entry["path"]: entry for entry in description["files"]}
    entries |= {entry["path"]: entry for entry in description.get("written", ())}
    log.info("%s: %.2f GB", folder, sum(entry["bytes"] for entry in entries.values()) / 1e9)
    return _check(folder / "snapshot", entries, pool)


def check_manifest(manifest: Path, pool: ThreadPoolExecutor) -> list[Wrong]:
    """Return the files that a manifest lists and that are missing or have other bytes."""
    return _check(manifest.parent, read_json(manifest)["files"], pool)


def _check(
    folder: Path, entries: Mapping[str, Mapping[str, Any]], pool: ThreadPoolExecutor
) -> list[Wrong]:
    names = sorted(entries)
    found = pool.map(lambda name: difference(folder / name, entries[name]), names)
    return [Wrong(folder / name, how) for name, how in zip(names, found, strict=True) if how]


def difference(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Return how a file differs from what is listed, None if it does not."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{size} bytes, expected {entry['bytes']}"
        digest = file_sha256(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if digest != entry["sha256"]:
        return f"damaged: sha256 {digest[:12]}…, expected {entry['sha256'][:12]}…"
    return None


def refetch(folder: Path, wrong: Sequence[Wrong], pool: ThreadPoolExecutor) -> list[Wrong]:
    """Fetch wrong files from the hub again and return what is wrong afterwards."""
    identity = read_json(folder / "identity.json")["identity"]
    repo = identity.get("repo") or identity.get("dataset")
    if repo is None:
        print(f"{folder}: from a local folder, so nothing can be fetched; mend the files there")
        return list(wrong)
    if "code" in identity:
        print(f"{folder}: has code of other repositories; delete the folder and run snakemake")
        return list(wrong)
    for found in wrong:
        forget(found.path)
    memo = DigestMemo(folder.parent.parent / MEMO)
    description = read_json(folder / LISTS[folder.parent.name])
    source = pinned_source(
        repo, identity["revision"], "dataset" if "dataset" in identity else "model"
    )
    with explained(source):
        known = known_files(source)
    files = [known[entry["path"]] for entry in description["files"] if entry["path"] in known]
    link_files(folder / "snapshot", source, files, memo)
    memo.save()
    return check_fetched(folder, pool)


if __name__ == "__main__":
    run_cli(main)
