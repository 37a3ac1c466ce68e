"""The differences between vLLM's versions, met with stand-ins that have the names of each.

Real and recorded versions are met in tests/engine and test_recorded_vllm. These stand-ins hold what
say: no renderers and no `tokens_input` before 0.16, guided decoding before 0.11, and so on.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scripts.worker import vllm_versions as versions
from scripts.worker.engine import EngineRefused
from scripts.worker.settings import Settings
from scripts.worker.vllm_facts import Tap, cache_facts

WORKER = Path(versions.__file__).parent


class OldParams:
    """A `SamplingParams` that is not yet a struct with `skip_clone`."""


class NewParams:
    """A `SamplingParams` of 0.28."""

    __struct_fields__ = ("temperature", "skip_clone")


def fake_vllm(**modules: Any) -> dict[str, ModuleType]:
    """Return modules named `vllm.<name>`, with `_` for a dot, that hold the given attributes."""
    fakes = {"vllm": ModuleType("vllm")}
    for name, attributes in modules.items():
        full = f"vllm.{name}"
        fakes[full] = ModuleType(full)
        vars(fakes[full]).update(attributes)
        setattr(fakes["vllm"], name, fakes[full])
    return fakes


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that makes a fake vLLM importable."""

    def put(**modules: Any) -> None:
        for name, module in fake_vllm(**modules).items():
            monkeypatch.setitem(sys.modules, name, module)

    yield put


KIND = SimpleNamespace(FINAL_ONLY="final")


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = dict.fromkeys(Settings.__dataclass_fields__, "")
    values.update({"defaults": {}, "args": {}, "adapters": {}, "model": "m", **changes})
    return Settings(**values)


def test_structured_outputs_have_the_name_of_the_version(install: Any) -> None:
    common = {"RequestOutputKind": KIND}
    install(sampling_params={**common, "SamplingParams": OldParams})
    assert versions.sampling_api().structured is None
    install(sampling_params={**common, "SamplingParams": OldParams, "GuidedDecodingParams": dict})
    middle = versions.sampling_api()
    assert (middle.structured, middle.structured_field) == (dict, "guided_decoding")
    assert middle.extras == {}
    install(
        sampling_params={
            **common,
            "SamplingParams": NewParams,
            "GuidedDecodingParams": list,
            "StructuredOutputsParams": dict,
        }
    )
    new = versions.sampling_api()
    assert (new.structured, new.structured_field) == (dict, "structured_outputs")
    assert new.extras == {"skip_clone": True}
    assert new.final_only == "final"


def test_token_ids_are_handed_over_in_the_version_s_form(install: Any) -> None:
    install(inputs={})
    assert versions.tokens_input()([1, 2]) == {"prompt_token_ids": [1, 2]}
    install(inputs={"tokens_input": lambda ids: ("rendered", ids)})
    assert versions.tokens_input()([1, 2]) == ("rendered", [1, 2])


def test_a_bad_request_is_told_from_a_dead_engine(install: Any) -> None:
    class Client(Exception):
        pass

    class Dead(Exception):
        pass

    install()
    assert not issubclass(Dead, versions.request_errors())
    install(exceptions={"VLLMValidationError": Client})
    assert issubclass(Client, versions.request_errors())
    install(exceptions={"VLLMClientError": Client, "VLLMServerError": Dead})
    assert issubclass(Client, versions.request_errors())
    assert not issubclass(Dead, versions.request_errors())


def test_defaults_are_dropped_where_unknown_and_arguments_are_not() -> None:
    known = {"dtype", "seed"}
    spec = settings(defaults={"seed": 0, "kv_cache_memory_bytes": 1}, args={"dtype": "float32"})
    assert versions.engine_arguments(spec, known) == {
        "model": "m",
        "disable_log_stats": False,
        "seed": 0,
        "dtype": "float32",
    }
    with pytest.raises(EngineRefused, match="no engine argument async_scheduling"):
        versions.engine_arguments(settings(args={"async_scheduling": True}), known)


def test_old_versions_choose_kernels_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ATTENTION_BACKEND", raising=False)
    spec = settings(args={"attention_backend": "FLASH_ATTN"})
    assert "attention_backend" not in versions.engine_arguments(spec, {"dtype"})
    assert os.environ.pop("VLLM_ATTENTION_BACKEND") == "FLASH_ATTN"
    assert versions.engine_arguments(spec, {"attention_backend"})["attention_backend"]


def test_structured_output_settings_have_an_old_name() -> None:
    spec = settings(args={"structured_outputs_config": {"backend": "xgrammar"}})
    old = versions.engine_arguments(spec, {"guided_decoding_backend"})
    assert old["guided_decoding_backend"] == "xgrammar"


def test_an_adapter_that_vllm_refuses_is_named(install: Any) -> None:
    class Request:
        def __init__(self, *values: Any) -> None:
            self.values = values

    class Engine:
        def add_lora(self, request: Request) -> None:
            if request.values[2] == "/broken":
                raise ValueError("expected other modules")

    install(**{"lora.request": {"LoRARequest": Request}})
    loaded = versions.load_adapters(Engine(), {"b": "/fine", "a": "/too"})
    assert [loaded[name].values for name in "ab"] == [("a", 1, "/too"), ("b", 2, "/fine")]
    with pytest.raises(EngineRefused, match=r"adapter /broken: ValueError: expected other modules"):
        versions.load_adapters(Engine(), {"a": "/broken"})
    assert versions.load_adapters(None, {}) == {}


def test_chat_is_rendered_by_vllm_where_it_can_and_by_the_template_before(install: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    calls: list[dict[str, Any]] = []

    def template(messages: Any, **options: Any) -> str:
        calls.append(options)
        return "by template"

    install()
    tokenizer = SimpleNamespace(apply_chat_template=template)
    render = versions.chat_renderer(SimpleNamespace(), tokenizer)
    assert render(messages, {"thinking": True}) == "by template"
    assert calls == [
        {
            "chat_template": None,
            "add_generation_prompt": True,
            "continue_final_message": False,
            "thinking": True,
            "tokenize": False,
        }
    ]
    install(
        renderers={"ChatParams": make_dataclass("P", ["chat_template", "chat_template_kwargs"])}
    )
    renderer = SimpleNamespace(render_messages=lambda m, p: ([], {"prompt": p}))
    engine = SimpleNamespace(renderer=renderer)
    params = versions.chat_renderer(SimpleNamespace(llm_engine=engine), tokenizer)(
        messages, {"continue_final_message": True}
    )
    assert params.chat_template_kwargs["add_generation_prompt"] is False
    assert params.chat_template_kwargs["tokenize"] is False


def test_engines_are_closed_at_once_whatever_their_shutdown_takes() -> None:
    calls: list[Any] = []
    new = SimpleNamespace(shutdown=lambda timeout: calls.append(timeout))
    old = SimpleNamespace(shutdown=lambda: calls.append("old"))
    for core in (new, old):
        versions.close_engine(SimpleNamespace(engine_core=core))
    versions.close_engine(SimpleNamespace())
    assert calls == [0, "old"]


def test_the_tap_counts_tokens_hits_and_preemptions_and_quiets_the_front_end() -> None:
    event = SimpleNamespace(type=SimpleNamespace(name="PREEMPTED"))
    received = SimpleNamespace(
        outputs=[
            SimpleNamespace(new_token_ids=[1, 2], events=[event]),
            SimpleNamespace(new_token_ids=[3], events=None),
        ],
        scheduler_stats=SimpleNamespace(prefix_cache_stats=SimpleNamespace(hits=4, queries=9)),
    )
    engine = SimpleNamespace(
        engine_core=SimpleNamespace(get_output=lambda: received),
        logger_manager="prometheus",
        log_stats=True,
        output_processor=SimpleNamespace(log_stats=True),
    )
    tap = Tap(engine)
    assert engine.engine_core.get_output() is received
    assert (tap.tokens, tap.facts()) == (
        3,
        {"prefix_cache_hit_tokens": 4, "prefix_cache_query_tokens": 9, "preemptions": 1},
    )
    assert (engine.logger_manager, engine.log_stats) == (None, False)
    assert Tap(SimpleNamespace()).facts() == {}


def test_cache_sizes_come_from_what_the_version_has() -> None:
    new = SimpleNamespace(
        kv_cache_size_tokens=100, num_gpu_blocks=9, block_size=16, kv_cache_max_concurrency=1.236
    )
    blocks = {"kv_cache_blocks": 9, "kv_cache_block_tokens": 16}
    assert cache_facts(new) == {**blocks, "kv_cache_tokens": 100, "kv_cache_concurrency": 1.24}
    old = SimpleNamespace(num_gpu_blocks=9, block_size=16)
    assert cache_facts(old) == {**blocks, "kv_cache_tokens": 144, "kv_cache_concurrency": None}


@pytest.mark.parametrize("path", sorted(WORKER.glob("*.py")), ids=lambda path: path.name)
def test_the_worker_is_python_3_9_and_imports_nothing_of_ours_outside(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    ours = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scripts")
    }
    assert all((name or "").startswith("scripts.worker") for name in ours)
