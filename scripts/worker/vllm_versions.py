"""Where the versions of vLLM differ, from 0.6.1 to 0.33.

What a version calls things is looked up when it runs (fields of `EngineArgs`, names in modules),
never told from its number: wheels are built from commits between releases. Really run were 0.28.0
on a CPU (tests/engine), 0.26.0 on a GPU (tests/peers), and once, by hand, 0.32.0 on a CPU: the same
bytes under any batch, and right answers and errors for every kind of request; that version no
longer logs its attention backend there. All others are covered by what was recorded of their
wheels: tests/unit/test_recorded_vllm.py runs this against the names, fields and signatures of each,
not against what they do.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Callable

from scripts.worker.engine import EngineRefused
from scripts.worker.settings import Settings
from scripts.worker.vllm_sampling import SamplingApi


def engine_fields() -> set[str]:
    """Return the names of the arguments that this vLLM's engine takes."""
    try:
        from vllm import EngineArgs
    except ImportError:
        from vllm.engine.arg_utils import EngineArgs
    return {field.name for field in dataclasses.fields(EngineArgs)}


def engine_arguments(settings: Settings, known: set[str]) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`: defaults where this version has them, then the config's.

    Raises `EngineRefused` for an argument of the config that this version does not have.
    """
    arguments = {name: value for name, value in settings.defaults.items() if name in known}
    arguments.update(settings.args)
    backend = arguments.get("attention_backend")
    if backend is not None and "attention_backend" not in known:
        # Until 0.12 or so the backend was chosen by a variable, read when it is first needed.
        os.environ["VLLM_ATTENTION_BACKEND"] = str(arguments.pop("attention_backend"))
    structured = arguments.get("structured_outputs_config")
    if structured is not None and "structured_outputs_config" not in known:
        arguments["guided_decoding_backend"] = arguments.pop("structured_outputs_config")["backend"]
    if "nnodes" in arguments and "nnodes" not in known:
        raise EngineRefused(
            "tuning.nodes: this vLLM starts no engine on several nodes; use an environment with "
            "vLLM 0.11.2 or newer"
        )
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise EngineRefused(
            f"this vLLM has no engine argument {', '.join(unknown)}; remove it from the engine's "
            "args or tuning, or use an environment with a vLLM that has it"
        )
    return {"model": settings.model, "disable_log_stats": False, **arguments}


def vllm_config(engine: Any) -> Any:
    """Return the object that holds `model_config` and its like; the engine itself before 0.6.4."""
    return getattr(engine, "vllm_config", engine)


def request_errors() -> tuple[type[Exception], ...]:
    """Return what vLLM raises for a bad request; the engine goes on after these."""
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, NotImplementedError)
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:
        try:
            from vllm.exceptions import VLLMValidationError as VLLMClientError
        except ImportError:
            return errors
    return (*errors, VLLMClientError)


def tokens_input() -> Callable[[list[int]], Any]:
    """Return the function that makes an engine's input from token ids."""
    try:
        from vllm.inputs import tokens_input as make
    except ImportError:
        return lambda token_ids: {"prompt_token_ids": token_ids}
    return make  # type: ignore[no-any-return]


def sampling_api() -> SamplingApi:
    """Return the names under which this version takes sampling parameters."""
    from vllm import sampling_params as module

    fields: Any = getattr(module.SamplingParams, "__struct_fields__", ())
    structured = getattr(module, "StructuredOutputsParams", None)
    name = "structured_outputs"
    if structured is None:
        structured, name = getattr(module, "GuidedDecodingParams", None), "guided_decoding"
    # Each request has params of its own, which vLLM need not copy in depth (a tenth of its work).
    extras = {"skip_clone": True} if "skip_clone" in fields else {}
    return SamplingApi(
        params=module.SamplingParams,
        structured_field=name,
        structured=structured,
        final_only=module.RequestOutputKind.FINAL_ONLY,
        extras=extras,
    )


def chat_renderer(llm: Any, tokenizer: Any) -> Callable[[list[Any], dict[str, Any]], Any]:
    """Return the function that applies the chat template.

    vLLM's own renderer where there is one (since 0.16 or so): it knows models whose format is not
    a template. Before, the tokenizer's template, as vLLM itself used it for text.
    """
    template = getattr(llm, "chat_template", None)
    try:
        from vllm.renderers import ChatParams
    except ImportError:

        def apply(messages: list[Any], kwargs: dict[str, Any]) -> Any:
            options = {**generation_prompt(kwargs), "tokenize": False}
            return tokenizer.apply_chat_template(messages, chat_template=template, **options)

        return apply

    # Mistral's own tokenizer turns messages into ids without a text in between.
    tokenize = bool(getattr(type(tokenizer), "IS_MISTRAL_TOKENIZER", False))

    def render(messages: list[Any], kwargs: dict[str, Any]) -> Any:
        options = {**generation_prompt(kwargs), "tools": None, "tokenize": tokenize}
        params = ChatParams(chat_template=template, chat_template_kwargs=options)
        # `LLM` itself has a renderer since 0.19 or so, its engine from the beginning.
        _, prompt = llm.llm_engine.renderer.render_messages(messages, params)
        return prompt["prompt_token_ids"] if "prompt_token_ids" in prompt else prompt["prompt"]

    return render


def generation_prompt(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a chat template: the model's turn begins, unless it goes on."""
    goes_on = bool(kwargs.get("continue_final_message"))
    return {"add_generation_prompt": not goes_on, "continue_final_message": goes_on, **kwargs}


def load_adapters(engine: Any, adapters: dict[str, str]) -> dict[str, Any]:
    """Load LoRA adapters and return the `LoRARequest` of each, by name; `adapters` are folders.

    Raises `EngineRefused` for one that vLLM cannot use: while a request waits for it, that would
    be the end of the engine.
    """
    if not adapters:
        return {}
    from vllm.lora.request import LoRARequest

    requests = {}
    for number, (name, folder) in enumerate(sorted(adapters.items()), start=1):
        requests[name] = LoRARequest(name, number, folder)
        try:
            engine.add_lora(requests[name])
        except Exception as error:
            raise EngineRefused(f"adapter {folder}: {type(error).__name__}: {error}") from error
    return requests


def close_engine(engine: Any) -> None:
    """Kill the engine's processes at once; their own teardown takes five seconds."""
    shutdown = getattr(getattr(engine, "engine_core", None), "shutdown", None)
    if shutdown is None:
        return
    try:
        shutdown(timeout=0)
    except TypeError:
        shutdown()
