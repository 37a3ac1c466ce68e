"""vLLM behind the interface of `engine`: the one place where its versions differ.

Written for 0.6.1 to 0.28; run on 0.28.0. What the versions call things is looked up at run time
(fields of `EngineArgs`, names in modules), never compared by version number.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any, Callable

from scripts.worker.engine import SAMPLING_INVALID, EngineRefused, Finished, RequestError
from scripts.worker.settings import Settings
from scripts.worker.vllm_facts import Tap, engine_facts
from scripts.worker.vllm_outputs import (
    corruption,
    finished_request,
    has_nan,
    looks_corrupted,
)
from scripts.worker.vllm_prompts import (
    Limits,
    Prompt,
    Source,
    fit_prompt,
    read_prompt,
    tokenize_all,
)
from scripts.worker.vllm_sampling import SamplingApi, check_sampling, make_params

PROBE = "probe-"
"""Prefix of the ids of requests that check whether logits are numbers."""

PROMPT_MEMORY = 512
"""Prompts kept ready for further samples of the same prompt, which come one after another."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A request that passed all checks."""

    prompt: Prompt
    params: Any
    sampling: dict[str, Any]


class VllmEngine:
    """A vLLM engine, driven step by step."""

    def __init__(self, settings: Settings) -> None:
        began = time.time()
        import vllm

        imported = time.time()
        arguments = engine_arguments(settings, engine_fields())
        self._llm = vllm.LLM(**arguments)
        self._engine = self._llm.llm_engine
        loaded = time.time()
        self._tap = Tap(self._engine)
        self._startup = {"import": imported - began, "load": loaded - imported}
        self._errors = request_errors()
        self._input = tokens_input()
        config = vllm_config(self._engine)
        self._config = config
        self._limits = Limits(
            int(config.model_config.max_model_len), int(config.model_config.get_vocab_size())
        )
        self.max_num_seqs = int(config.scheduler_config.max_num_seqs)
        self._api = sampling_api()
        self._tokenizer = self._llm.get_tokenizer()
        self._render = chat_renderer(self._llm, self._tokenizer)
        self._lora = lora_request(settings.adapter)
        self._running: dict[str, Prepared] = {}
        self._suspects: dict[str, Finished] = {}
        self._prompts: dict[str, Prompt | RequestError] = {}

    def prepare(self, requests: list[dict[str, Any]]) -> list[Prepared | RequestError]:
        """Check, render and tokenise requests; see `engine.Engine`."""
        prompts = self._prepare_prompts(requests)
        prepared: list[Prepared | RequestError] = []
        for request, prompt in zip(requests, prompts):
            if isinstance(prompt, RequestError):
                prepared.append(prompt)
                continue
            sampling, max_tokens = request["sampling"], request["max_tokens"]
            try:
                check_sampling(sampling, max_tokens, self._limits.vocabulary)
                params = make_params(sampling, max_tokens, self._api)
            except RequestError as error:
                prepared.append(error)
            except self._errors as error:
                prepared.append(RequestError(SAMPLING_INVALID, str(error)))
            else:
                prepared.append(Prepared(prompt, params, sampling))
        return prepared

    def _prepare_prompts(self, requests: list[dict[str, Any]]) -> list[Prompt | RequestError]:
        names = [prompt_name(request) for request in requests]
        missing = {
            name: request for name, request in zip(names, requests) if name not in self._prompts
        }
        if len(self._prompts) > PROMPT_MEMORY:
            self._prompts = {name: self._prompts[name] for name in names if name in self._prompts}
        sources = [self._source(request) for request in missing.values()]
        ids = tokenize_all(sources, self._tokenize)
        for (name, request), source, tokens in zip(missing.items(), sources, ids):
            self._prompts[name] = self._fit(request, source, tokens)
        return [self._prompts[name] for name in names]

    def _source(self, request: dict[str, Any]) -> Source | RequestError:
        try:
            return read_prompt(request["prompt"], self._render)
        except RequestError as error:
            return error

    def _fit(
        self, request: dict[str, Any], source: Source | RequestError, ids: list[int] | RequestError
    ) -> Prompt | RequestError:
        if isinstance(source, RequestError):
            return source
        if isinstance(ids, RequestError):
            return ids
        mode = request.get("on_too_long", "error")
        try:
            return fit_prompt(source, ids, mode, request["max_tokens"], self._limits)
        except RequestError as error:
            return error

    def _tokenize(self, texts: list[str], special: bool) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=special)["input_ids"]  # type: ignore[no-any-return]

    def add(self, request_id: str, prepared: Prepared) -> None:
        """Queue a request; see `engine.Engine`."""
        try:
            self._add(request_id, prepared.prompt, prepared.params)
        except self._errors as error:
            refused = RequestError(SAMPLING_INVALID, str(error))
            refused.prompt_tokens = len(prepared.prompt.token_ids)
            refused.rendered_prompt = prepared.prompt.rendered
            raise refused from error
        self._running[request_id] = prepared

    def _add(self, request_id: str, prompt: Prompt, params: Any) -> None:
        # New lists and new params: vLLM may keep what it is given.
        options = {} if self._lora is None else {"lora_request": self._lora}
        self._engine.add_request(request_id, self._input(prompt.token_ids), params, **options)

    def step(self) -> list[Finished]:
        """Advance by a step; see `engine.Engine`."""
        finished = []
        for output in self._engine.step():
            if not output.finished:
                continue
            if output.request_id.startswith(PROBE):
                finished.append(self._judge(output))
                continue
            prepared = self._running.pop(output.request_id)
            item = finished_request(output.request_id, output, prepared.prompt)
            if item.error is None and looks_corrupted(item):
                self._probe(item, prepared)
            else:
                finished.append(item)
        return finished

    def _probe(self, item: Finished, prepared: Prepared) -> None:
        """Ask for the first token again, with its log-probability: NaN logits give NaN."""
        sampling = {**prepared.sampling, "max_tokens": 1, "min_tokens": 0, "logprobs": 0}
        params = make_params(sampling, 1, self._api)
        self._suspects[PROBE + item.request_id] = item
        self._add(PROBE + item.request_id, prepared.prompt, params)

    def _judge(self, output: Any) -> Finished:
        item = self._suspects.pop(output.request_id)
        if has_nan(output.outputs[0].cumulative_logprob):
            return item._replace(error=corruption("every token is token 0"))
        return item

    def generated_tokens(self) -> int | None:
        """Return the tokens generated so far; see `engine.Engine`."""
        return self._tap.tokens if self._tap.tapped else None

    def facts(self) -> dict[str, Any]:
        """Return what vLLM tells about itself; see `engine.Engine`."""
        return {
            **engine_facts(self._config),
            **self._tap.facts(),
            "startup_s": dict(self._startup),
        }

    def close(self) -> None:
        """Kill the engine's processes without waiting for their teardown; see `engine.Engine`."""
        core = getattr(self._engine, "engine_core", None)
        shutdown = getattr(core, "shutdown", None)
        if shutdown is None:
            return
        try:
            shutdown(timeout=0)
        except TypeError:
            shutdown()


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
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise EngineRefused(
            f"this vLLM has no engine argument {', '.join(unknown)}; remove it from the engine's "
            "args or tuning, or use an environment with a vLLM that has it"
        )
    if settings.adapter is not None:
        # With one slot vLLM's CPU kernels give the adapter's output to all requests.
        arguments.update(enable_lora=True, max_loras=2)
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
        _, prompt = llm.renderer.render_messages(messages, params)
        return prompt["prompt_token_ids"] if "prompt_token_ids" in prompt else prompt["prompt"]

    return render


def generation_prompt(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a chat template: the model's turn begins, unless it goes on."""
    goes_on = bool(kwargs.get("continue_final_message"))
    return {"add_generation_prompt": not goes_on, "continue_final_message": goes_on, **kwargs}


def lora_request(adapter: str | None) -> Any:
    """Return the adapter that all requests use, None without one."""
    if adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, adapter)


def prompt_name(request: dict[str, Any]) -> str:
    """Return what tells prompts apart that are prepared differently."""
    return f"{request.get('on_too_long')} {request['max_tokens']} {request['prompt']!r}"
