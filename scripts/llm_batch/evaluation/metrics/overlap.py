"""How much of the reference a completion has: BLEU, chrF, ROUGE, F1 of words."""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from scripts.llm_batch.evaluation.metrics.base import (
    Judgement,
    Take,
    metric_type,
    reference_texts,
    search,
)

CORPUS_RESAMPLES = 1000


class CorpusScore(NamedTuple):
    """A score of all completions together, with sacrebleu's bootstrap interval at 95 %."""

    value: float
    low: float
    high: float


class _SacreBleu:
    """What BLEU and chrF share; `make` builds sacrebleu's metric, which takes 0.2 s to import."""

    def accept(self, reference: Any) -> tuple[str, ...] | None:
        """Return the reference texts that are not empty."""
        return tuple(text for text in reference_texts(reference) if text.strip()) or None

    def judge(self, text: str, accepted: tuple[str, ...]) -> Judgement:
        """Return the sentence's score; there is no answer to vote on."""
        return Judgement(float(self._sentence.sentence_score(text, list(accepted)).score), None)

    def corpus(self, texts: Sequence[str], references: Sequence[tuple[str, ...]]) -> CorpusScore:
        """Return the score of all sentences together and its interval."""
        most = max(map(len, references))
        streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
        found = self._corpus.corpus_score(list(texts), streams, n_bootstrap=CORPUS_RESAMPLES)
        return CorpusScore(found.score, found._mean - found._ci, found._mean + found._ci)

    @property
    def _sentence(self) -> Any:
        raise NotImplementedError

    @property
    def _corpus(self) -> Any:
        return self._sentence


@metric_type("bleu")
@dataclass(frozen=True)
class Bleu(_SacreBleu):
    """BLEU (Papineni et al. 2002; Post 2018, arXiv:1804.08771).

    A sentence's score leaves out orders that the sentence is too short for (effective order).
    """

    tokenize: str = "13a"
    lowercase: bool = False
    smooth_method: str = "exp"
    binary: bool = False
    votes: bool = False

    @property
    def _sentence(self) -> Any:
        return _bleu(self.tokenize, self.lowercase, self.smooth_method, True)

    @property
    def _corpus(self) -> Any:
        return _bleu(self.tokenize, self.lowercase, self.smooth_method, False)


@functools.cache
def _bleu(tokenize: str, lowercase: bool, smooth_method: str, effective_order: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(
        tokenize=tokenize,
        lowercase=lowercase,
        smooth_method=smooth_method,
        effective_order=effective_order,
    )


@metric_type("chrf")
@dataclass(frozen=True)
class Chrf(_SacreBleu):
    """chrF and chrF++ (Popović 2015 and 2017)."""

    char_order: int = 6
    word_order: int = 0
    beta: int = 2
    lowercase: bool = False
    binary: bool = False
    votes: bool = False

    @property
    def _sentence(self) -> Any:
        return _chrf(int(self.char_order), int(self.word_order), int(self.beta), self.lowercase)


@functools.cache
def _chrf(char_order: int, word_order: int, beta: int, lowercase: bool) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(char_order=char_order, word_order=word_order, beta=beta, lowercase=lowercase)


@metric_type("rouge")
@dataclass(frozen=True)
class Rouge:
    """ROUGE (Lin 2004), by Google's implementation."""

    variant: str = "rougeL"
    measure: Literal["fmeasure", "precision", "recall"] = "fmeasure"
    use_stemmer: bool = False
    binary: bool = False
    votes: bool = False

    def accept(self, reference: Any) -> tuple[str, ...] | None:
        """Return the reference texts that are not empty."""
        return tuple(text for text in reference_texts(reference) if text.strip()) or None

    def judge(self, text: str, accepted: tuple[str, ...]) -> Judgement:
        """Return the best score over the references."""
        scorer = _rouge(self.variant, self.use_stemmer)
        scores = [scorer.score(wanted, text)[self.variant] for wanted in accepted]
        return Judgement(float(max(getattr(one, self.measure) for one in scores)), None)


@functools.cache
def _rouge(variant: str, use_stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([variant], use_stemmer=use_stemmer)


@metric_type("token_f1")
@dataclass(frozen=True)
class TokenF1:
    """F1 of bags of words after SQuAD's normalisation (Rajpurkar et al. 2016, arXiv:1606.05250)."""

    extract: re.Pattern[str] | None = None
    take: Take = "first"
    binary: bool = False
    votes: bool = False

    def accept(self, reference: Any) -> tuple[str, ...] | None:
        """Return the reference texts; an empty one means that there is no answer."""
        return reference_texts(reference) or None

    def judge(self, text: str, accepted: tuple[str, ...]) -> Judgement:
        """Return the best F1 over the references."""
        found = search(self.extract, self.take, text)
        if found is None:
            return Judgement(0.0, None)
        return Judgement(max(_f1(_words(found), _words(wanted)) for wanted in accepted), found)


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    text = text.lower().translate(_PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))
