"""A model of the harness that asks no engine: it prepares requests just as its vLLM backend does.

What is tokenised, cut and stopped how is that backend's convention (lm_eval 0.4.13,
`models/vllm_causallms.py`), for our scores are to equal its scores row by row:

- A text that already begins with the prefix token (BOS, else EOS) gets no special tokens.
- A prompt to be continued is cut from the left so that `max_gen_toks` fit behind it; one to be
  scored so that one token fits, for vLLM generates at least one.
- The end-of-text token is a stop sequence, and special tokens are not left out of a text.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import jinja2
from lm_eval.api.model import TemplateLM
from lm_eval.models import utils
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import AutoTokenizer

from scripts.harness.requests import Answer, HarnessError, Request

LOG = logging.getLogger(__name__)

SCORING = {"temperature": 0.0, "prompt_logprobs": 1, "max_tokens": 1, "detokenize": False}
"""Sampling of a request for log-probabilities: of each token, and of the likeliest beside it."""


def read_tokenizer(folder: str, mode: str, trust_remote_code: bool) -> Any:
    """Return the tokenizer of the model in `folder`, prepared as the harness does."""
    if mode not in ("auto", "hf", "slow"):
        raise HarnessError(f"tokenizer_mode {mode}: the harness reads Hugging Face tokenizers only")
    tokenizer = AutoTokenizer.from_pretrained(
        folder, use_fast=mode != "slow", trust_remote_code=trust_remote_code
    )
    return utils.configure_pad_token(tokenizer)


class TaskModel(TemplateLM):  # type: ignore[misc]
    """Prepares requests; subclasses have the answers (`answer`)."""

    max_gen_toks = 256

    def __init__(
        self, tokenizer: Any, max_length: int, chat_template_kwargs: dict[str, Any]
    ) -> None:
        """Make a model with a context of `max_length` tokens, prompt and answer together."""
        super().__init__()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._chat_template_kwargs = {"enable_thinking": None, **chat_template_kwargs}
        self._asked: Sequence[Any] = ()

    def answer(self, requests: list[Request], instances: int) -> list[Answer]:
        """Return an answer to each request; they are all that `instances` instances need."""
        raise NotImplementedError

    @property
    def eot_token_id(self) -> Any:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> Any:
        """The token that stands before a text without context."""
        bos = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's own cache, which is not used."""
        return "tokenizer"

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **kwargs: Any) -> Any:
        """Return the token ids of a text, or of each text of a list."""
        if not string:
            return []
        texts = [string] if isinstance(string, str) else list(string)
        prefix = (
            None if self.prefix_token_id is None else self.tokenizer.decode(self.prefix_token_id)
        )
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        encoded = [
            self.tokenizer(
                text,
                return_attention_mask=False,
                **kwargs,
                **(
                    {"add_special_tokens": False} if utils.has_bos_prefix(text, prefix) else special
                ),
            ).input_ids
            for text in texts
        ]
        return encoded[0] if isinstance(string, str) else encoded

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the model's template writes it."""
        try:
            return self._templated(chat_history, add_generation_prompt)
        except jinja2.TemplateError:
            LOG.warning("the chat template refuses a system message; it is left out")
            rest = [message for message in chat_history if message["role"] != "system"]
            return self._templated(rest, add_generation_prompt)

    def _templated(self, messages: list[dict[str, str]], generation_prompt: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            continue_final_message=not generation_prompt,
            **self._chat_template_kwargs,
        )
        return text

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Return the text that follows each context, up to a stop sequence."""
        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        prompts, stops = [], []
        contexts = [instance.args[0] for instance in requests]
        for instance, token_ids in zip(requests, self.tok_encode(contexts), strict=True):
            settings = utils.normalize_gen_kwargs(instance.args[1], self.max_gen_toks)
            stop = utils.handle_stop_sequences(settings.pop("until", None), eos=eos)
            limit = int(settings.pop("max_gen_toks"))
            if not settings.pop("do_sample", False):
                # As the harness documents it; its vLLM backend samples at vLLM's default of 1
                # where a task says neither do_sample nor temperature.
                settings["temperature"] = 0.0
            token_ids, limit = utils.maybe_truncate(token_ids, limit, self.max_length)
            sampling = {
                "skip_special_tokens": False,
                "spaces_between_special_tokens": False,
                **settings,
                "stop": stop,
                "max_tokens": limit,
            }
            prompts.append(Request(token_ids, instance.args[0], sampling, None, instance))
            stops.append(stop)
        answers = self.answer(prompts, len(requests))
        return [
            utils.postprocess_generated_text(answer.text, stop, None)
            for answer, stop in zip(answers, stops, strict=True)
        ]

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Return of each (context, continuation) its log-likelihood, and whether it is greedy."""
        self._asked = requests
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return scores

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = True, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        prompts = [
            self._scoring(instance, "".join(texts), context, continuation)
            for instance, (texts, context, continuation) in zip(self._asked, requests, strict=True)
        ]
        answers = self.answer(prompts, len(prompts))
        return [_likelihood(*pair) for pair in zip(prompts, answers, strict=True)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = True
    ) -> list[float]:
        """Return the log-likelihood of each text, in windows where it is longer than a context."""
        prompts = []
        for instance in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(instance.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 2,
                context_len=1,
            )
            for part, window in enumerate(map(make_disjoint_window, windows)):
                text = self.tokenizer.decode(window[1])
                prompts.append(self._scoring(instance, text, window[0], window[1], part))
        totals = {id(instance): 0.0 for instance in requests}
        for prompt, answer in zip(prompts, self.answer(prompts, len(requests)), strict=True):
            totals[id(prompt.instance)] += _likelihood(prompt, answer)[0]
        return [totals[id(instance)] for instance in requests]

    def _scoring(
        self, instance: Any, text: str, context: list[int], continuation: list[int], part: int = 0
    ) -> Request:
        longest = self.max_length - 1
        cut = max(0, len(context) + len(continuation) - longest)
        if cut >= len(context):
            raise HarnessError(
                f"{instance.task_name}, document {instance.doc_id}: a continuation of "
                f"{len(continuation)} tokens does not fit into max_model_len={self.max_length}"
            )
        token_ids = (context + continuation)[cut:]
        return Request(token_ids, text, SCORING, len(context) - cut, instance, part)


def _likelihood(request: Request, answer: Answer) -> tuple[float, bool]:
    """Return the sum of a continuation's log-probabilities, and whether each token is likeliest."""
    tokens = request.token_ids[request.scored_from :]
    pairs = list(zip(tokens, answer.logprobs, strict=True))
    greedy = all(max(found, key=found.__getitem__) == token for token, found in pairs)
    return sum(found[token] for token, found in pairs), greedy


class Recorded(Exception):
    """All requests have been taken down: there is nothing to score yet."""


class Recorder(TaskModel):
    """Takes requests down; raises `Recorded` when those of all `tasks` are there."""

    def __init__(self, tasks: Sequence[Any], *args: Any) -> None:
        """Make a model that is asked by `tasks` and by nobody else."""
        super().__init__(*args)
        self.requests: list[Request] = []
        self._tasks = tasks
        self._instances = 0

    def answer(self, requests: list[Request], instances: int) -> list[Answer]:
        """Keep the requests; the answers returned say nothing and are never scored."""
        self.requests += requests
        self._instances += instances
        wanted = sum(one.repeats or 1 for task in self._tasks for one in task.instances)
        if self._instances >= wanted:
            raise Recorded
        return [
            Answer("", [{token: 0.0} for token in request.token_ids[request.scored_from or 0 :]])
            for request in requests
        ]


class Replayer(TaskModel):
    """Answers with `answers`, in the order in which the requests were taken down."""

    def __init__(
        self, prompts: Sequence[dict[str, Any]], answers: Sequence[Answer], *args: Any
    ) -> None:
        """Make a model of the answers to `prompts`."""
        super().__init__(*args)
        self._prompts = prompts
        self._answers = answers
        self._next = 0

    def answer(self, requests: list[Request], instances: int) -> list[Answer]:
        """Return the next answers; raise `HarnessError` if they are answers to other prompts."""
        taken = slice(self._next, self._next + len(requests))
        self._next += len(requests)
        asked = [request.token_ids for request in requests]
        if asked != [prompt["token_ids"] for prompt in self._prompts[taken]]:
            raise HarnessError(
                "the harness asks other requests than it did before; delete the task's folder in "
                "results/tasks and run again"
            )
        return list(self._answers[taken])
