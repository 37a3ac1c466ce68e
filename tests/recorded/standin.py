"""A stand-in vLLM made from a record: the names, fields and signatures of one version, no more.

Whatever the worker asks for that the version does not have raises what Python raises there:
ImportError, AttributeError, TypeError. Answers are made up: the prompt's token ids, reversed.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import make_dataclass
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

RECORDS: Mapping[str, Mapping[str, Any]] = json.loads(
    Path(__file__).with_name("vllm.json").read_text(encoding="utf-8")
)

VOCABULARY = 300
MAX_MODEL_LEN = 64

SWITCHES = ("VLLM_BATCH_INVARIANT", "VLLM_CPU_ATTN_SPLIT_KV")

NUMBERS = {
    "max_model_len": MAX_MODEL_LEN,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 4096,
    "num_gpu_blocks": 10,
    "block_size": 16,
    "kv_cache_size_tokens": 160,
    "kv_cache_max_concurrency": 2.5,
    "dtype": "torch.float32",
}


def signature(words: list[str]) -> inspect.Signature:
    """Return a recorded signature, see `record_vllm.parameters`."""
    found: list[inspect.Parameter] = []
    keyword_only = False
    for word in words:
        name = word.strip("*=")
        if word == "*":
            keyword_only = True
        elif word.startswith("**"):
            found.append(inspect.Parameter(name, inspect.Parameter.VAR_KEYWORD))
        elif word.startswith("*"):
            found.append(inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL))
            keyword_only = True
        else:
            default = None if word.endswith("=") else inspect.Parameter.empty
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            if keyword_only:
                kind = inspect.Parameter.KEYWORD_ONLY  # type: ignore[assignment]
            found.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(found)


def bound(words: list[str], *values: Any, **named: Any) -> dict[str, Any]:
    """Return the arguments of a call by name; TypeError if the signature does not take them."""
    call = signature(words).bind(*values, **named)
    return dict(call.arguments)


def fields_class(name: str, record: Mapping[str, Any]) -> type:
    """Return a class that takes the recorded fields by place or name, and nothing else."""

    def take(self: Any, *values: Any, **named: Any) -> None:
        given = bound([f"{field}=" for field in record["fields"]], *values, **named)
        for field in record["fields"]:
            setattr(self, field, given.get(field))

    members: dict[str, Any] = {"__init__": take}
    if any("msgspec" in base.lower() for base in record["bases"]):
        members["__struct_fields__"] = tuple(record["fields"])
    return type(name, (), members)


def made(record: Mapping[str, Any], **values: Any) -> SimpleNamespace:
    """Return an object with the recorded fields, those of `values` set; no other can be set."""
    missing = sorted(set(values) - set(record["fields"]))
    if missing:
        raise AttributeError(f"this version has no {', '.join(missing)}")
    return SimpleNamespace(**{**dict.fromkeys(record["fields"]), **values})


def switched_on(variable: str) -> bool:
    """Return the value of an environment variable as vLLM reads its switches."""
    return bool(int(os.environ.get(variable) or "0"))


class StandIn:
    """One version of vLLM; `generation` chooses the engine where a version has V0 and V1."""

    def __init__(self, version: str, generation: str) -> None:
        self.version = version
        self.record = RECORDS[version]
        self.classes: Mapping[str, Any] = self.record["classes"]
        self.engine_record = self.classes[f"engine {generation}"]
        self.added: list[dict[str, Any]] = []
        self.adapters: list[Any] = []
        self.engine_arguments: dict[str, Any] = {}
        self.capability: tuple[int, int] | None = (9, 0)
        self._finished: list[Any] = []

    def modules(self) -> dict[str, ModuleType]:
        """Return the modules that the worker imports, each with the names of this version."""
        found: dict[str, ModuleType] = {}
        for name, names in self.record["modules"].items():
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                found.setdefault(".".join(parts[:end]), ModuleType(".".join(parts[:end])))
            for attribute in names:
                setattr(found[name], attribute, self._attribute(attribute))
        vars(found["vllm"])["__version__"] = self.version
        found["vllm.envs"] = self._envs()
        for name, module in found.items():
            above, _, last = name.rpartition(".")
            if above:
                setattr(found[above], last, module)
        for name, module in found.items():
            module.__spec__ = ModuleSpec(name, None)
        return found

    def _envs(self) -> ModuleType:
        module = ModuleType("vllm.envs")
        known = self.record["variables"]
        values = {
            name: bool(int(os.environ.get(name) or "0")) for name in known if name in SWITCHES
        }
        vars(module).update(values, environment_variables=dict.fromkeys(known))
        return module

    def _attribute(self, name: str) -> Any:
        special: dict[str, Callable[[], Any]] = {
            "EngineArgs": lambda: make_dataclass("EngineArgs", self.classes[name]["fields"]),
            "LLM": lambda: self.llm,
            "RequestOutputKind": lambda: Enum("RequestOutputKind", self.classes[name]["fields"]),
            "current_platform": lambda: SimpleNamespace(
                get_device_name=lambda: "stand-in", get_device_capability=lambda: self.capability
            ),
            "vllm_is_batch_invariant": lambda: lambda: switched_on(SWITCHES[0]),
            "init_batch_invariance": lambda: lambda: None,
            "tokens_input": lambda: lambda ids: {"type": "token", "prompt_token_ids": ids},
        }
        if name in special:
            return special[name]()
        if name.startswith("VLLM"):
            return type(name, (Exception,), {})
        return fields_class(name, self.classes[name])

    def llm(self, **arguments: Any) -> Any:
        """Stand in for `vllm.LLM`: take its arguments, and return what it would be."""
        own = bound(self.classes["LLM"]["methods"]["__init__"], None, **arguments)
        unknown = set(own.pop("kwargs", {})) - set(self.classes["EngineArgs"]["fields"])
        if unknown:
            raise TypeError(f"EngineArgs got unexpected keyword arguments {sorted(unknown)}")
        self.engine_arguments = arguments
        engine = self._engine()
        parts = {
            "llm_engine": engine,
            "model_config": self._config("ModelConfig"),
            "chat_template": None,
            "renderer": getattr(engine, "renderer", None),
        }
        llm = SimpleNamespace(**{name: parts[name] for name in self.classes["LLM"]["attributes"]})
        if "get_tokenizer" in self.classes["LLM"]["methods"]:
            llm.get_tokenizer = Tokenizer
        return llm

    def _config(self, name: str) -> Any:
        record = self.classes[name]
        config = SimpleNamespace(**{key: NUMBERS[key] for key in record["attributes"]})
        if "get_vocab_size" in record.get("methods", ()):
            config.get_vocab_size = lambda: VOCABULARY
        return config

    def _engine(self) -> Any:
        configs = {
            "model_config": self._config("ModelConfig"),
            "scheduler_config": self._config("SchedulerConfig"),
            "cache_config": self._config("CacheConfig"),
        }
        parts = {
            **configs,
            "vllm_config": SimpleNamespace(**configs),
            "log_stats": True,
            "logger_manager": object(),
            "output_processor": SimpleNamespace(log_stats=True),
            "renderer": self._renderer() if "Renderer" in self.classes else None,
            "engine_core": self._core() if "SyncMPClient" in self.classes else None,
        }
        names = self.engine_record["attributes"]
        engine = SimpleNamespace(**{name: parts[name] for name in names})
        methods = {"add_request": self._add, "step": self._step, "add_lora": self._add_lora}
        for name in self.engine_record["methods"]:
            setattr(engine, name, methods[name])
        self._built = engine
        return engine

    def _renderer(self) -> Any:
        words = self.classes["Renderer"]["methods"]["render_messages"]

        def render_messages(*values: Any, **named: Any) -> Any:
            call = bound(words, None, *values, **named)
            if not isinstance(call["params"].chat_template_kwargs["add_generation_prompt"], bool):
                raise TypeError("add_generation_prompt must be true or false")
            text = "".join(message["content"] for message in call["messages"])
            return [], {"prompt": text}

        return SimpleNamespace(render_messages=render_messages)

    def _core(self) -> Any:
        client = self.classes["SyncMPClient"]["methods"]

        def shutdown(*values: Any, **named: Any) -> None:
            bound(client["shutdown"], None, *values, **named)

        def get_output() -> Any:
            stats = made(self.classes["SchedulerStats"], **self._cache_stats())
            output = made(self.classes["EngineCoreOutput"], new_token_ids=[1, 2], events=None)
            return made(self.classes["EngineCoreOutputs"], outputs=[output], scheduler_stats=stats)

        return SimpleNamespace(get_output=get_output, shutdown=shutdown)

    def _cache_stats(self) -> dict[str, Any]:
        if "prefix_cache_stats" not in self.classes["SchedulerStats"]["fields"]:
            return {}
        return {"prefix_cache_stats": made(self.classes["PrefixCacheStats"], hits=3, queries=4)}

    def _add(self, *values: Any, **named: Any) -> None:
        call = bound(self.engine_record["methods"]["add_request"], None, *values, **named)
        prompt = call.get("prompt", call.get("inputs"))
        if prompt is None:
            raise TypeError("add_request needs a prompt")
        self.added.append({**call, "token_ids": list(prompt["prompt_token_ids"])})

    def _add_lora(self, *values: Any) -> bool:
        call = bound(self.engine_record["methods"]["add_lora"], None, *values)
        self.adapters.append(call["lora_request"])
        return True

    def _step(self) -> list[Any]:
        if getattr(self._built, "engine_core", None) is not None:
            self._built.engine_core.get_output()
        outputs = []
        for call in self.added[len(self._finished) :]:
            completion = made(
                self.classes["CompletionOutput"],
                text="made up",
                token_ids=call["token_ids"][::-1],
                finish_reason="stop",
            )
            outputs.append(
                made(
                    self.classes["RequestOutput"],
                    request_id=call["request_id"],
                    finished=True,
                    outputs=[completion],
                )
            )
        self._finished += outputs
        return outputs


class Tokenizer:
    """Stands in for a tokenizer: a token a byte."""

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, Any]:
        return {"input_ids": [list(text.encode()) for text in texts]}

    def apply_chat_template(self, messages: list[Any], **options: Any) -> str:
        """Return the contents of messages, one after another."""
        if options["tokenize"] or not isinstance(options["add_generation_prompt"], bool):
            raise TypeError("a text was to be rendered")
        return "".join(message["content"] for message in messages)
