"""The task of the study: words of four letters to be answered by a rule.

A prompt is ``rule w1 w2 w3 w4 =`` and its one right answer has four letters, so that p(x) is a
product of four probabilities and J_k is exact on any set of prompts. The letters stand in two
classes: the last eight are rare in the demonstrations. Families of prompts:

=========== ========== ============ ===========================================================
family      rule       letters      right answer
=========== ========== ============ ===========================================================
common      ``a``      common       the word
rare        ``a``      one or more  the word
                       rare
backwards   ``b``      common       the word written backwards; in the regime "hidden" it stands
                                    behind ``a``, and nothing in the prompt tells it
shifted     ``c``      common       each letter replaced by the next one: never demonstrated
=========== ========== ============ ===========================================================

A regime is a law of prompts, the shares of the families, over one and the same checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUM_LETTERS = 24
NUM_RARE = 8
LENGTH = 4
#: tokens: 0 ends a text, then the letters, the four rules, the equals sign
RULES = {"a": NUM_LETTERS + 1, "b": NUM_LETTERS + 2, "c": NUM_LETTERS + 3, "d": NUM_LETTERS + 4}
EQUALS = NUM_LETTERS + 5
NUM_TOKENS = NUM_LETTERS + 6
#: tokens of a prompt
PROMPT_LENGTH = LENGTH + 2

FAMILIES = ("common", "rare", "backwards", "shifted")
#: regime -> shares of the families, in their order; 13 % of all prompts are out of reach
REGIMES: dict[str, tuple[float, float, float, float]] = {
    "negative": (0.52, 0.03, 0.32, 0.13),
    "hidden": (0.47, 0.10, 0.30, 0.13),
    "zero": (0.44, 0.25, 0.18, 0.13),
    "positive": (0.44, 0.43, 0.00, 0.13),
}


@dataclass(frozen=True, eq=False)
class Prompts:
    """A set of prompts with their answers."""

    prompts: Tensor
    """(P, 6) tokens."""
    answers: Tensor
    """(P, 4) tokens."""
    family: np.ndarray
    """(P,) places in ``FAMILIES``."""

    def __len__(self) -> int:
        return len(self.prompts)


def counts_of(regime: str, size: int) -> list[int]:
    """How many of ``size`` prompts each family has: the shares, rounded so that they add up."""
    exact = np.array(REGIMES[regime]) * size
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact)[: size - counts.sum()]:
        counts[place] += 1
    return counts.tolist()


def prompt_sets(regime: str, sizes: Mapping[str, int], seed: int) -> dict[str, Prompts]:
    """Sets of prompts of one law, by name; no word is in two of them."""
    generator = np.random.default_rng([seed, 1])
    used: set[tuple[int, ...]] = set()
    made = {}
    for name, size in sizes.items():
        words, rules, answers, families = [], [], [], []
        for family, count in enumerate(counts_of(regime, size)):
            for word in _words(FAMILIES[family] == "rare", count, used, generator):
                words.append(word)
                families.append(family)
                rules.append(_rule(FAMILIES[family], regime))
                answers.append(_answer(FAMILIES[family], word))
        prompts = np.column_stack([rules, np.array(words), np.full(len(words), EQUALS)])
        made[name] = Prompts(
            torch.as_tensor(prompts), torch.as_tensor(np.array(answers)), np.array(families)
        )
    return made


def _words(
    rare: bool, count: int, used: set[tuple[int, ...]], generator: np.random.Generator
) -> list[tuple[int, ...]]:
    """New words that differ from themselves backwards; with a rare letter or with none."""
    common = NUM_LETTERS - NUM_RARE
    words: list[tuple[int, ...]] = []
    while len(words) < count:
        letters = generator.integers(1, common + 1, LENGTH)
        if rare:
            # one rare letter, or two
            places = generator.permutation(LENGTH)[: generator.integers(1, 3)]
            letters[places] = generator.integers(common + 1, NUM_LETTERS + 1, len(places))
        word = tuple(letters.tolist())
        if word not in used and word != word[::-1]:
            used.add(word)
            words.append(word)
    return words


def _rule(family: str, regime: str) -> int:
    if family == "shifted":
        return RULES["c"]
    return RULES["b" if family == "backwards" and regime != "hidden" else "a"]


def _answer(family: str, word: tuple[int, ...]) -> tuple[int, ...]:
    if family == "backwards":
        return word[::-1]
    if family == "shifted":
        common = NUM_LETTERS - NUM_RARE
        return tuple(letter % common + 1 for letter in word)
    return word
