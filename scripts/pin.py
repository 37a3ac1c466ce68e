"""Write commits into a config: of every model, adapter and data set on the hub that has none.

    python -m scripts.pin my-experiment.yaml            what has no commit gets the newest
    python -m scripts.pin my-experiment.yaml --update   what has one gets the newest of main, too
    python -m scripts.pin google/gemma-2-9b-it          prints owner/name@commit for --config model=

A branch or tag that is written as `revision` is resolved; without one, `main` is. Comments, order
and spacing of the file stay. Nothing is written if anything cannot be resolved.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.llm_batch.addresses import write_text_atomic
from scripts.llm_batch.config.oneoff import ON_HUB
from scripts.llm_batch.errors import ConfigError, WorkflowError, run_cli
from scripts.llm_batch.hub.models import commit_of
from scripts.llm_batch.hub.pins import Pin, find_pins, write_pins
from scripts.llm_batch.hub.problems import explained, quiet_client
from scripts.llm_batch.hub.source import Source

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="the config file, or a model as owner/name")
    parser.add_argument(
        "--update", action="store_true", help="resolve main also where a commit is written"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Resolve, write and say what was written; 0 on success."""
    arguments = build_parser().parse_args(argv)
    quiet_client()
    path: Path = arguments.config
    named = ON_HUB.fullmatch(f"{path}" if "@" in str(path) else f"{path}@main")
    if named and not path.exists() and path.suffix not in CONFIG_SUFFIXES:
        print(f"{named['repo']}@{commit_of(Source(named['repo'], named['revision']))}")
        return 0
    try:
        # Line ends are kept as they are.
        text = path.read_bytes().decode("utf-8")
        pins = find_pins(text, quoted=path.suffix == ".json")
        wanted = [pin for pin in pins if arguments.update or not pin.pinned]
        commits = resolve(wanted)
        changed = {pin: commit for pin, commit in commits.items() if commit != pin.revision}
        new = write_pins(text, changed)
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{path}: cannot be read: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if changed:
        write_text_atomic(path, new)
    for pin, commit in commits.items():
        kept = "" if pin in changed else " (as it was)"
        print(f"{pin.where}: {pin.source.repo} is at {commit}{kept}")
    if not wanted:
        print(f"{path}: nothing to pin: {len(pins)} revisions, each a commit")
    return 0


def resolve(pins: Sequence[Pin]) -> dict[Pin, str]:
    """Return the commit of each pin; raise `WorkflowError` with a line for each that has none."""
    from huggingface_hub import HfApi

    api, commits, problems = HfApi(), {}, []
    for pin in pins:
        source = pin.source._replace(revision="main") if pin.pinned else pin.source
        try:
            with explained(source):
                info = api.repo_info(source.repo, repo_type=source.kind, revision=source.revision)
        except WorkflowError as error:
            problems.append(f"{pin.where}: {error}")
            continue
        commits[pin] = str(info.sha)
        if info.id != source.repo:
            print(f"{pin.where}: {source.repo} is called {info.id} on the hub now; write that")
    if problems:
        raise WorkflowError("\n".join([*problems, "nothing was written"]))
    return commits


if __name__ == "__main__":
    run_cli(main)
