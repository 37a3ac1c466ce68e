"""The worker against every recorded version of vLLM: what it asks for is there.

The stand-ins are made from records of the wheels (tests/recorded): they have the names, fields and
signatures of their version and nothing else, and made-up answers. Really run are 0.28.0 on a CPU
(tests/engine), 0.26.0 on a GPU (tests/peers/README.md), and once 0.32.0 on a CPU, by
`LLM_BATCH_ENGINE_PYTHON=… pytest tests/engine`; all others are covered by this only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scripts.llm_batch.config.schema import engine_schema, load_schema
from scripts.llm_batch.generate.engine_log import log_facts
from scripts.llm_batch.generate.settings import SUPERVISOR_TUNING, switches
from scripts.worker import vllm_versions
from scripts.worker.engine import EngineRefused, RequestError
from scripts.worker.settings import Settings
from scripts.worker.vllm_engine import VllmEngine
from scripts.worker.vllm_outputs import FINISH_REASONS
from tests.recorded.record_vllm import VARIABLES
from tests.recorded.standin import RECORDS, StandIn
from tests.unit.test_supervisor_settings import spec

VERSIONS = list(RECORDS)

LATEST = {"0.7.3": "V0"}
"""The generation that runs by default, where that is not the newest: V1 was an experiment."""

ENGINES = [
    (version, generation)
    for version, record in RECORDS.items()
    for generation in ("V0", "V1")
    if f"engine {generation}" in record["classes"] and LATEST.get(version, generation) == generation
]

Request = dict[str, Any]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts a stand-in in the place of vLLM and PyTorch."""

    def put(version: str, generation: str = "") -> StandIn:
        generation = generation or [one for name, one in ENGINES if name == version][-1]
        standin = StandIn(version, generation)
        for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
            monkeypatch.delitem(sys.modules, name)
        torch = ModuleType("torch")
        vars(torch).update(__version__="2", version=SimpleNamespace(cuda=None))
        for name, module in {**standin.modules(), "torch": torch}.items():
            monkeypatch.setitem(sys.modules, name, module)
        return standin

    return put


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = dict.fromkeys(Settings.__dataclass_fields__, "")
    values |= {"defaults": {"seed": 0, "kv_cache_memory_bytes": 1 << 26}, "args": {}}
    return Settings(**{**values, "adapters": {}, "model": "m", "determinism": "fast", **changes})


def request(sampling: Mapping[str, Any], **prompt: Any) -> Request:
    sampling = {"temperature": 1.0, "max_tokens": 8, "seed": 1, **sampling}
    return {"key": "k", "max_tokens": 8, "prompt": prompt, "sampling": sampling}


def answered(engine: VllmEngine, *requests: Request) -> list[Any]:
    """Have requests answered; return what finished, and the errors of the others."""
    prepared = engine.prepare(list(requests))
    for number, one in enumerate(prepared):
        if not isinstance(one, RequestError):
            engine.add(str(number), one)
    return [*engine.step(), *(one for one in prepared if isinstance(one, RequestError))]


@pytest.mark.parametrize(("version", "generation"), ENGINES)
def test_texts_chats_and_token_ids_are_answered(
    install: Any, version: str, generation: str
) -> None:
    standin = install(version, generation)
    engine = VllmEngine(settings(adapters={"fr": "/adapters/fr"}))
    chat = [{"role": "user", "content": "hi"}]
    requests = [
        request({}, text="abc"),
        request({"temperature": 0, "seed": None}, messages=chat, chat_template_kwargs={}),
        {**request({"logprobs": 2}, token_ids=[5, 6]), "adapter": "fr"},
    ]
    finished = answered(engine, *requests)
    assert [one.token_ids for one in finished] == [[99, 98, 97], [105, 104], [6, 5]]
    assert [one.rendered_prompt for one in finished] == [None, "hi", None]
    assert {one.finish_reason for one in finished} == {"stop"}
    final = [call["params"].output_kind.name for call in standin.added]
    assert final == ["FINAL_ONLY"] * 3
    used = [call.get("lora_request") for call in standin.added]
    assert used == [None, None, standin.adapters[0]]
    lora = standin.adapters[0]
    assert (lora.lora_name, lora.lora_int_id, lora.lora_path) == ("fr", 1, "/adapters/fr")
    facts = engine.facts()
    assert facts["version"] == version
    assert (facts["max_model_len"], facts["max_num_seqs"]) == (64, 8)
    assert facts["kv_cache_tokens"] == 160
    engine.close()


def test_tokens_and_cache_hits_are_counted_from_0_11_on(install: Any) -> None:
    counted = {}
    for version, generation in ENGINES:
        install(version, generation)
        engine = VllmEngine(settings())
        answered(engine, request({}, text="abc"))
        facts = engine.facts()
        counted[version, generation] = (
            engine.generated_tokens(),
            facts.get("prefix_cache_hit_tokens"),
        )
    old = ("0.6", "0.7", "0.8", "0.9", "0.10")
    for (version, _), found in counted.items():
        assert found == ((None, None) if version.startswith(old) else (2, 3)), version


def sampling_values() -> dict[str, Any]:
    """Return a value for each sampling parameter of the config."""
    return {
        "n": 1,
        "seed": 3,
        "temperature": 0.5,
        "max_tokens": 8,
        "min_tokens": 1,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "repetition_penalty": 1.1,
        "stop": ["x"],
        "stop_token_ids": [1],
        "bad_words": ["y"],
        "ignore_eos": True,
        "skip_special_tokens": False,
        "logprobs": 1,
        "prompt_logprobs": 1,
        "spaces_between_special_tokens": False,
        "include_stop_str_in_output": True,
        "logit_bias": {"5": 1.0},
        "allowed_token_ids": [5, 6],
        "structured_outputs": {"choice": ["a", "b"]},
    }


LATER_PARAMETERS = {
    "0.6.1.post1": {"bad_words", "logit_bias", "allowed_token_ids", "structured_outputs"},
    "0.6.3.post1": {"bad_words"},
}
"""What a version does not have yet; a request that asks for it ends with an error."""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_sampling_parameter_reaches_vllm_or_is_an_error_of_its_request(
    install: Any, version: str
) -> None:
    schema = load_schema()["properties"]["samplings"]["additionalProperties"]["properties"]
    assert set(sampling_values()) == set(schema)
    standin = install(version)
    engine = VllmEngine(settings())
    for name, value in sampling_values().items():
        before = len(standin.added)
        (found,) = answered(engine, request({name: value}, text="abc"))
        if name in LATER_PARAMETERS.get(version, ()):
            assert isinstance(found, RequestError)
            assert found.kind == "sampling_invalid"
            assert len(standin.added) == before
            continue
        params = standin.added[-1]["params"]
        if name == "structured_outputs":
            form = getattr(params, name, None) or params.guided_decoding
            assert form.choice == ["a", "b"]
        elif name == "logit_bias":
            assert params.logit_bias == {5: 1.0}
        elif name != "n":
            assert getattr(params, name) == value


LATER_ARGUMENTS = {
    "attention_backend": "0.13.0",
    "structured_outputs_config": "0.11.2",
    "kv_cache_memory_bytes": "0.11.2",
    "safetensors_load_strategy": "0.11.2",
    "logprobs_mode": "0.10.1.1",
    "async_scheduling": "0.10.1.1",
    "disable_cascade_attn": "0.8.5.post1",
    "enable_expert_parallel": "0.8.5.post1",
    **dict.fromkeys(
        ("calculate_kv_scales", "compilation_config", "model_impl", "hf_overrides"), "0.7.3"
    ),
    "generation_config": "0.7.3",
}
"""Since when vLLM has an engine argument, among the recorded versions; all others it always had."""

GONE_ARGUMENTS = {"calculate_kv_scales": "0.28.0"}
"""Engine arguments that vLLM has given up."""

TRANSLATED = {"attention_backend": "VLLM_ATTENTION_BACKEND", "structured_outputs_config": None}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_engine_argument_reaches_vllm_or_is_refused_by_name(
    install: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "")
    standin = install(version)
    known = set(standin.classes["EngineArgs"]["fields"])
    values = {name: {"backend": "auto"} for name in ("structured_outputs_config",)}
    tuning = set(engine_schema("tuning")["properties"]) - SUPERVISOR_TUNING
    for name in {*engine_schema("args")["properties"], *tuning}:
        one = settings(args={name: values.get(name, 1)})
        since = VERSIONS.index(LATER_ARGUMENTS.get(name, VERSIONS[0]))
        until = VERSIONS.index(GONE_ARGUMENTS[name]) if name in GONE_ARGUMENTS else len(VERSIONS)
        if since <= VERSIONS.index(version) < until or name in TRANSLATED:
            VllmEngine(one)
            assert name in TRANSLATED or name in standin.engine_arguments
        else:
            with pytest.raises(EngineRefused, match=f"no engine argument {name}; remove it"):
                vllm_versions.engine_arguments(one, known)


@pytest.mark.parametrize("version", VERSIONS)
def test_arguments_for_adapters_are_known(install: Any, version: str) -> None:
    known = set(install(version).classes["EngineArgs"]["fields"])
    assert {"enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank"} <= known


def test_variables_that_are_set_are_known_to_the_version_that_is_run() -> None:
    newest = set(RECORDS["0.28.0"]["variables"])
    assert {name for name in switches(spec()) if name.startswith("VLLM_")} <= newest
    strict = switches(spec(device="cuda", determinism="strict"))
    assert {name for name in strict if name.startswith("VLLM_")} <= newest
    assert {"VLLM_NO_USAGE_STATS", "VLLM_CACHE_ROOT"} <= newest <= VARIABLES


@pytest.mark.parametrize("version", VERSIONS)
def test_reasons_to_finish_are_known(version: str) -> None:
    """`abort` and `error` are no answers: the engine counts as failed."""
    reasons = RECORDS[version]["finish_reasons"] or ["stop", "length", "abort"]
    assert set(reasons) <= {*FINISH_REASONS, "abort", "error"}


def facts_of(message: str, folder: Path) -> dict[str, Any]:
    """Return the facts that are read from a message, with figures and names in its fields."""
    texts = {"%s": "FLASH_ATTN", "%d": "7", "%.0f": "3", "%.1f": "1.2", "%.6f": "2.500000"}
    if message.startswith("Model loading"):
        texts["%s"] = "1.25"
    for code, text in {**texts, "%.2f": "1.25", "%.4f": "1.2500"}.items():
        message = message.replace(code, text)
    (folder / "log").write_text(message)
    return log_facts(folder / "log")


@pytest.mark.parametrize("version", VERSIONS)
def test_facts_are_read_from_the_messages_of_the_version(version: str, tmp_path: Path) -> None:
    messages = {m: facts_of(m, tmp_path) for m in RECORDS[version]["log"]}

    def found(words: str, read: Callable[[dict[str, Any]], Any]) -> set[Any]:
        return {read(facts) for message, facts in messages.items() if words in message}

    def startup(name: str) -> Callable[[dict[str, Any]], Any]:
        return lambda facts: facts["log_startup_s"].get(name)

    weights = found("Model loading took", lambda facts: facts["weights_bytes"])
    weights |= found("Loading model weights took", lambda facts: facts["weights_bytes"])
    assert weights == {1.25 * 2**30}
    assert found("Graph capturing finished", startup("graph_capture")) == {3.0}
    if not version.startswith("0.6"):
        assert 1.25 in found("init engine (", startup("warm_up"))
    assert found("torch.compile took", startup("compile")) <= {1.25, 1.2}
    assert found("(compilation: ", startup("compile")) <= {1.25}
    assert found("backend", lambda facts: facts["attention_backend"]) - {None}


def test_records_say_where_they_come_from() -> None:
    assert len(VERSIONS) >= 15
    assert {VERSIONS[0], "0.28.0"} <= set(VERSIONS)
    for version, record in RECORDS.items():
        assert record["wheel"]["name"].startswith(f"vllm-{version}-")
        assert len(record["wheel"]["sha256"]) == 64
    assert json.dumps(RECORDS)


STRICT_GPU = VERSIONS[VERSIONS.index("0.11.2") :]
STRICT_AMPERE = VERSIONS[VERSIONS.index("0.19.1") :]
STRICT_CPU = VERSIONS[VERSIONS.index("0.22.1") :]


def strict_refusal(standin: StandIn, capability: tuple[int, int] | None) -> str:
    """Return how a strict engine is refused, empty if it starts; nothing may be asked before."""
    standin.capability = capability
    standin.engine_arguments = {}
    try:
        VllmEngine(settings(determinism="strict"))
    except EngineRefused as error:
        assert standin.engine_arguments == {}
        return str(error)
    return ""


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_is_refused_where_vllm_or_the_gpu_offer_nothing(
    install: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_ATTN_SPLIT_KV", raising=False)
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    standin = install(version)
    ampere, hopper = strict_refusal(standin, (8, 0)), strict_refusal(standin, (9, 0))
    if version not in STRICT_GPU:
        assert f"(0.11.1 or newer), this is {version}; use an environment with a newer" in hopper
        return
    assert hopper == ""
    facts = VllmEngine(settings(determinism="strict")).facts()
    assert facts["invariance"] == {"switch": "VLLM_BATCH_INVARIANT=1", "on": True}
    if version in STRICT_AMPERE:
        assert ampere == ""
        least = "8.0"
    else:
        assert "capability 9.0, that of this one is 8.0; use another" in ampere
        least = "9.0"
    assert f"needs a GPU of compute capability {least}" in strict_refusal(standin, (7, 5))
    assert "that of this one is not known" in strict_refusal(standin, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_on_a_cpu_is_refused_before_vllm_can_keep_it(
    install: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_ATTN_SPLIT_KV", "0")
    refusal = strict_refusal(install(version), None)
    if version in STRICT_CPU:
        assert refusal == ""
    else:
        assert "needs a vLLM that knows VLLM_CPU_ATTN_SPLIT_KV (0.20 does)" in refusal
    install(version)
    facts = VllmEngine(settings()).facts()["invariance"]
    seen = True if version in STRICT_CPU else None
    assert facts == {"switch": "VLLM_CPU_ATTN_SPLIT_KV=0", "on": seen}
