"""Record from vLLM's wheels what the worker relies on: names, fields and signatures.

    python -m tests.recorded.record_vllm 0.11.2 0.28.0    download these wheels, add their records

The wheels (150 to 500 MB each) are read one after another, by `ast`, without installing or running
anything, and deleted. `vllm.json` beside this file holds one record a version, with the name and
the sha256 of the wheel it was taken from. What a record cannot tell is what vLLM does when it is
called; only the versions in tests/engine and tests/peers were really run.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

RECORDS = Path(__file__).with_name("vllm.json")

NAMES: Mapping[str, Sequence[str]] = {
    "vllm": ("EngineArgs", "LLM", "SamplingParams"),
    "vllm.engine.arg_utils": ("EngineArgs",),
    "vllm.exceptions": ("VLLMClientError", "VLLMValidationError"),
    "vllm.inputs": ("tokens_input",),
    "vllm.lora.request": ("LoRARequest",),
    "vllm.platforms": ("current_platform",),
    "vllm.renderers": ("ChatParams",),
    "vllm.sampling_params": (
        *("SamplingParams", "RequestOutputKind"),
        *("StructuredOutputsParams", "GuidedDecodingParams"),
    ),
    "vllm.model_executor.layers.batch_invariant": ("vllm_is_batch_invariant",),
    "vllm.model_executor.determinism.batch_invariant": ("init_batch_invariance",),
}
"""Modules that the worker imports from, or looks for, and the names that it takes there."""


class Wanted(NamedTuple):
    """A class: the modules it may be in, the methods whose signatures count."""

    modules: tuple[str, ...]
    methods: tuple[str, ...] = ()


CONFIGS = ("vllm.config", "vllm.config.{}")

CLASSES: Mapping[str, Wanted] = {
    "EngineArgs": Wanted(("vllm.engine.arg_utils",)),
    "LLM": Wanted(("vllm.entrypoints.llm",), ("__init__", "get_tokenizer")),
    "engine V0": Wanted(("vllm.engine.llm_engine",), ("add_request", "step", "add_lora")),
    "engine V1": Wanted(("vllm.v1.engine.llm_engine",), ("add_request", "step", "add_lora")),
    "InprocClient": Wanted(("vllm.v1.engine.core_client",), ("get_output", "shutdown")),
    "SyncMPClient": Wanted(("vllm.v1.engine.core_client",), ("get_output", "shutdown")),
    "EngineCoreOutputs": Wanted(("vllm.v1.engine",)),
    "EngineCoreOutput": Wanted(("vllm.v1.engine",)),
    "EngineCoreEventType": Wanted(("vllm.v1.engine",)),
    "SchedulerStats": Wanted(("vllm.v1.metrics.stats",)),
    "PrefixCacheStats": Wanted(("vllm.v1.metrics.stats",)),
    "SamplingParams": Wanted(("vllm.sampling_params",)),
    "RequestOutputKind": Wanted(("vllm.sampling_params",)),
    "StructuredOutputsParams": Wanted(("vllm.sampling_params",)),
    "GuidedDecodingParams": Wanted(("vllm.sampling_params",)),
    "RequestOutput": Wanted(("vllm.outputs",)),
    "CompletionOutput": Wanted(("vllm.outputs",)),
    "Logprob": Wanted(("vllm.logprobs", "vllm.sequence")),
    "LoRARequest": Wanted(("vllm.lora.request",)),
    "ChatParams": Wanted(("vllm.renderers.params", "vllm.renderers")),
    "Renderer": Wanted(
        ("vllm.renderers.base", "vllm.renderers.protocol"), ("render_messages", "get_tokenizer")
    ),
    "VllmConfig": Wanted(("vllm.config.vllm", "vllm.config")),
    "ModelConfig": Wanted(("vllm.config.model", "vllm.config"), ("get_vocab_size",)),
    "SchedulerConfig": Wanted(("vllm.config.scheduler", "vllm.config")),
    "CacheConfig": Wanted(("vllm.config.cache", "vllm.config")),
    "CpuPlatform": Wanted(("vllm.platforms.cpu",), ("get_device_name", "get_device_capability")),
    "NvmlCudaPlatform": Wanted(
        ("vllm.platforms.cuda",), ("get_device_name", "get_device_capability")
    ),
}
"""What is recorded of classes; `engine …` are called LLMEngine, Renderer BaseRenderer."""

REAL_NAMES = {"engine V0": "LLMEngine", "engine V1": "LLMEngine", "Renderer": "BaseRenderer"}

READ = frozenset(
    {
        *("llm_engine", "chat_template", "renderer"),
        *("engine_core", "output_processor", "logger_manager", "log_stats", "vllm_config"),
        *("model_config", "scheduler_config", "cache_config", "max_model_len", "dtype"),
        *("max_num_seqs", "max_num_batched_tokens", "num_gpu_blocks", "block_size"),
        *("kv_cache_size_tokens", "kv_cache_max_concurrency"),
    }
)
"""What the worker reads of engines and their configs; of these classes nothing else is recorded."""

VARIABLES = frozenset(
    {
        *("VLLM_BATCH_INVARIANT", "VLLM_CPU_ATTN_SPLIT_KV", "VLLM_ATTENTION_BACKEND"),
        *("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_CACHE_ROOT"),
        *("VLLM_CPU_OMP_THREADS_BIND", "VLLM_LOGGING_LEVEL", "VLLM_USE_V1"),
    }
)
"""Environment variables that the supervisor sets or lets through."""

LOG_WORDS = (
    *("Model loading took", "Loading model weights took", "Graph capturing finished"),
    *("init engine (", "torch.compile took", "torch.compile takes", " backend", "KV cache layout"),
)
"""Messages that the facts are read from hold one of these."""

LOG_MODULES = (
    *("vllm.worker", "vllm.v1", "vllm.platforms", "vllm.compilation", "vllm.attention"),
    *("vllm.engine", "vllm.model_executor.model_loader"),
)


class Sources:
    """The Python files of a wheel, parsed when they are asked for."""

    def __init__(self, wheel: Path) -> None:
        self._archive = zipfile.ZipFile(wheel)
        self._trees: dict[str, ast.Module | None] = {}

    def tree(self, module: str) -> ast.Module | None:
        """Return the syntax tree of a module, None if there is no such module."""
        if module not in self._trees:
            stem = module.replace(".", "/")
            found = [name for name in (f"{stem}.py", f"{stem}/__init__.py") if name in self._files]
            self._trees[module] = ast.parse(self._archive.read(found[0])) if found else None
        return self._trees[module]

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(self._archive.namelist())

    def modules(self, prefixes: Sequence[str]) -> Iterator[str]:
        """Yield the names of all modules below `prefixes`."""
        for name in sorted(self._files):
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            if name.endswith(".py") and module.startswith(tuple(prefixes)):
                yield module


def exported(tree: ast.Module) -> set[str]:
    """Return the names that a module has: defined, imported, or made on demand from a table."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    names.update(_table_of_names(tree))
    return names


def _table_of_names(tree: ast.Module) -> Iterator[str]:
    """Yield the keys of `MODULE_ATTRS`, from which vLLM makes its names when they are used."""
    for node in tree.body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = any(isinstance(t, ast.Name) and t.id == "MODULE_ATTRS" for t in targets)
        if named and isinstance(value, ast.Dict):
            yield from _texts([key for key in value.keys if key is not None])


def class_record(sources: Sources, name: str, wanted: Wanted) -> dict[str, Any] | None:
    """Return fields, attributes and signatures of a class, its base classes in vLLM included."""
    real = REAL_NAMES.get(name, name)
    for module in wanted.modules:
        tree = sources.tree(module)
        lineage = list(_lineage(sources, module, tree, real)) if tree else []
        if lineage:
            break
    else:
        return None
    fields: dict[str, None] = {}
    attributes: set[str] = set()
    methods: dict[str, list[str]] = {}
    for node in reversed(lineage):
        fields.update(dict.fromkeys(_fields(node)))
        attributes.update(_attributes(node))
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name in wanted.methods:
                methods[item.name] = parameters(item.args)
    bases = sorted({ast.unparse(base) for node in lineage for base in node.bases})
    found: dict[str, Any] = {"module": module}
    if real in ("LLM", "LLMEngine", "BaseRenderer") or real.endswith("Config"):
        found["attributes"] = sorted(READ.intersection({*attributes, *fields}))
    elif not real.endswith("Platform"):
        found |= {"bases": bases, "fields": list(fields) or sorted(attributes)}
    if wanted.methods:
        found["methods"] = methods
    return found


def _lineage(
    sources: Sources, module: str, tree: ast.Module, name: str, depth: int = 0
) -> Iterator[ast.ClassDef]:
    """Yield a class and, as far as they are vLLM's, its base classes."""
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None or depth > 5:
        return
    yield node
    for base in node.bases:
        if isinstance(base, ast.Subscript):
            base = base.value
        if not isinstance(base, ast.Name):
            continue
        yield from _lineage(sources, module, tree, base.id, depth + 1)
        for home in _homes(module, tree, base.id):
            other = sources.tree(home)
            if other is not None:
                yield from _lineage(sources, home, other, base.id, depth + 1)


def _homes(module: str, tree: ast.Module, name: str) -> Iterator[str]:
    """Yield the modules that `name` is imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            parts = module.split(".")
            above = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            yield ".".join(filter(None, [above, node.module or ""]))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            if "ClassVar" not in ast.unparse(item.annotation):
                yield item.target.id
        elif isinstance(item, ast.Assign) and any("Enum" in ast.unparse(b) for b in node.bases):
            yield from (target.id for target in item.targets if isinstance(target, ast.Name))


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    """Yield what methods set on `self`, and properties."""
    for item in ast.walk(node):
        if isinstance(item, ast.FunctionDef) and any(
            "property" in ast.unparse(decorator) for decorator in item.decorator_list
        ):
            yield item.name
        elif (
            isinstance(item, ast.Attribute)
            and isinstance(item.ctx, ast.Store)
            and isinstance(item.value, ast.Name)
            and item.value.id == "self"
        ):
            yield item.attr


def parameters(arguments: ast.arguments) -> list[str]:
    """Return a signature as a list of words: `name`, `name=` with a default, `*`, `**kwargs`."""
    plain = [*arguments.posonlyargs, *arguments.args]
    first_default = len(plain) - len(arguments.defaults)
    words = [arg.arg + ("=" if i >= first_default else "") for i, arg in enumerate(plain)]
    if arguments.vararg:
        words.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        words.append("*")
    for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        words.append(arg.arg + ("" if default is None else "="))
    if arguments.kwarg:
        words.append(f"**{arguments.kwarg.arg}")
    return words


def variables(tree: ast.Module) -> list[str]:
    """Return the names of the environment variables that `vllm.envs` knows."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            if "VLLM_CACHE_ROOT" in keys:
                return sorted(VARIABLES.intersection(keys))
    return []


def log_messages(sources: Sources) -> list[str]:
    """Return the format strings of the messages that facts are read from."""
    found = set()
    for module in sources.modules(LOG_MODULES):
        tree = sources.tree(module)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Call) and "logger" in ast.unparse(node.func):
                for text in _texts(node.args[:1]):
                    told = "%" in text or text.startswith("Using ")
                    if told and any(word in text for word in LOG_WORDS):
                        found.add(text)
    return sorted(found)


def _texts(nodes: Sequence[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def finish_reasons(tree: ast.Module | None) -> list[str] | None:
    """Return `FINISH_REASON_STRINGS`, None where a version has none."""
    for node in tree.body if tree else ():
        if not (isinstance(node, ast.Assign) and isinstance(node.value, (ast.Tuple, ast.List))):
            continue
        if any(isinstance(t, ast.Name) and "FINISH_REASON" in t.id for t in node.targets):
            return list(_texts(node.value.elts))
    return None


def record(wheel: Path) -> dict[str, Any]:
    """Return the record of one wheel."""
    sources = Sources(wheel)
    modules = {}
    for module, names in NAMES.items():
        tree = sources.tree(module)
        if tree is not None:
            modules[module] = sorted(exported(tree).intersection(names))
    classes = {name: class_record(sources, name, wanted) for name, wanted in CLASSES.items()}
    envs = sources.tree("vllm.envs")
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "wheel": {"name": wheel.name, "sha256": digest},
        "modules": modules,
        "classes": {name: found for name, found in classes.items() if found is not None},
        "variables": variables(envs) if envs else [],
        "finish_reasons": finish_reasons(sources.tree("vllm.v1.engine")),
        "log": log_messages(sources),
    }


def download(version: str, folder: Path) -> Path:
    """Return vLLM's wheel of `version`, downloaded by pip from its index."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), f"vllm=={version}"]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def main(argv: Sequence[str] | None = None) -> int:
    """Add the records of the versions on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    for version in parser.parse_args(argv).versions:
        with tempfile.TemporaryDirectory() as folder:
            found = record(download(version, Path(folder)))
        records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
        records[version] = found
        ordered = dict(sorted(records.items(), key=lambda item: version_numbers(item[0])))
        RECORDS.write_text(written(ordered), encoding="utf-8")
        print(f"{version}: {found['wheel']['name']}")
    return 0


def written(records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return records as JSON, a line for each class."""
    versions = []
    for version, found in records.items():
        parts = []
        for key, value in found.items():
            text = json.dumps(value)
            if key == "classes":
                lines = [f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
                text = "{\n" + ",\n".join(lines) + "\n  }"
            parts.append(f"  {json.dumps(key)}: {text}")
        versions.append(f" {json.dumps(version)}: {{\n" + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(versions) + "\n}\n"


def version_numbers(version: str) -> list[int]:
    """Return a version to sort by."""
    return [int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")]


if __name__ == "__main__":
    raise SystemExit(main())
