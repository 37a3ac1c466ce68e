"""vLLM behind the interface of `engine`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from scripts.worker.engine import ADAPTER_MISSING, SAMPLING_INVALID, Finished, RequestError
from scripts.worker.settings import Settings
from scripts.worker.vllm_facts import Tap, engine_facts
from scripts.worker.vllm_invariance import check_invariance, invariance_facts
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
from scripts.worker.vllm_sampling import check_sampling, make_params
from scripts.worker.vllm_versions import (
    chat_renderer,
    close_engine,
    engine_arguments,
    engine_fields,
    load_adapters,
    request_errors,
    sampling_api,
    tokens_input,
    vllm_config,
)

PROBE = "probe-"
"""Prefix of the ids of requests that check whether logits are numbers."""

PROMPT_MEMORY = 512
"""Prompts kept ready for further samples of the same prompt, which come one after another."""


@dataclass(frozen=True)
class Prepared:
    """A request that passed all checks."""

    prompt: Prompt
    params: Any
    sampling: dict[str, Any]
    lora: Any


class VllmEngine:
    """A vLLM engine, driven step by step."""

    def __init__(self, settings: Settings) -> None:
        began = time.time()
        import vllm

        imported = time.time()
        if settings.determinism == "strict":
            check_invariance()
        arguments = engine_arguments(settings, engine_fields())
        self._llm = vllm.LLM(**arguments)
        self._engine = self._llm.llm_engine
        self._adapters = load_adapters(self._engine, settings.adapters)
        loaded = time.time()
        self._tap = Tap(self._engine)
        self._invariance = invariance_facts()
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
            try:
                prepared.append(self._prepare(request, prompt))
            except RequestError as error:
                prepared.append(located(error, prompt))
        return prepared

    def _prepare(self, request: dict[str, Any], prompt: Prompt) -> Prepared:
        sampling, max_tokens = request["sampling"], request["max_tokens"]
        check_sampling(sampling, max_tokens, self._limits.vocabulary)
        try:
            params = make_params(sampling, max_tokens, self._api)
        except self._errors as error:
            raise RequestError(SAMPLING_INVALID, str(error)) from error
        return Prepared(prompt, params, sampling, self._adapter(request.get("adapter")))

    def _adapter(self, name: str | None) -> Any:
        if name is None:
            return None
        if name not in self._adapters:
            # Without it vLLM would answer, as the model that it is not.
            raise RequestError(ADAPTER_MISSING, f"no adapter {name} is loaded")
        return self._adapters[name]

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
            self._add(request_id, prepared, prepared.params)
        except self._errors as error:
            raise located(RequestError(SAMPLING_INVALID, str(error)), prepared.prompt) from error
        self._running[request_id] = prepared

    def _add(self, request_id: str, prepared: Prepared, params: Any) -> None:
        # New lists and new params: vLLM may keep what it is given.
        options = {} if prepared.lora is None else {"lora_request": prepared.lora}
        ids = prepared.prompt.token_ids
        self._engine.add_request(request_id, self._input(ids), params, **options)

    def step(self) -> list[Finished]:
        """Advance by a step; see `engine.Engine`."""
        finished = []
        for output in self._engine.step():
            if not output.finished:
                continue
            if output.request_id.startswith(PROBE):
                finished.append(self._judge(output))
                continue
            prepared = self._running.pop(output.request_id, None)
            if prepared is None:
                # What is left of a request that vLLM refused half-way.
                continue
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
        self._add(PROBE + item.request_id, prepared, params)

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
            "invariance": self._invariance,
            "startup_s": dict(self._startup),
        }

    def close(self) -> None:
        """Kill the engine's processes without waiting for their teardown; see `engine.Engine`."""
        close_engine(self._engine)


def located(error: RequestError, prompt: Prompt) -> RequestError:
    """Return `error` with what is known about the prompt of its request."""
    error.prompt_tokens = len(prompt.token_ids)
    error.rendered_prompt = prompt.rendered
    return error


def prompt_name(request: dict[str, Any]) -> str:
    """Return what tells prompts apart that are prepared differently."""
    return f"{request.get('on_too_long')} {request['max_tokens']} {request['prompt']!r}"
