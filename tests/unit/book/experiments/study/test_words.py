import numpy as np
import pytest

from passgrad_book.experiments.study import words as words_module
from passgrad_book.experiments.study.words import (
    FAMILIES,
    NUM_LETTERS,
    NUM_RARE,
    REGIMES,
    RULES,
    counts_of,
    prompt_sets,
)

SIZES = {"train": 64, "held": 64}


@pytest.mark.parametrize("regime", REGIMES)
def test_a_law_has_the_shares_that_it_names(regime):
    assert sum(REGIMES[regime]) == pytest.approx(1)
    assert sum(counts_of(regime, 100)) == 100
    np.testing.assert_allclose(counts_of(regime, 100), 100 * np.array(REGIMES[regime]), atol=1)


@pytest.mark.parametrize("regime", REGIMES)
def test_no_word_is_in_two_sets_and_answers_follow_the_rules(regime):
    sets = prompt_sets(regime, SIZES, seed=3)
    words = [tuple(word) for part in sets.values() for word in part.prompts[:, 1:5].tolist()]
    assert len(set(words)) == len(words) == 128
    for part in sets.values():
        rows = (part.prompts.tolist(), part.answers.tolist(), part.family)
        for prompt, answer, place in zip(*rows, strict=True):
            word, family = prompt[1:5], FAMILIES[place]
            rare = max(word) > NUM_LETTERS - NUM_RARE
            assert rare == (family == "rare")
            if family == "backwards":
                assert answer == word[::-1] != word
                assert prompt[0] == RULES["a" if regime == "hidden" else "b"]
            elif family == "shifted":
                assert answer != word
            else:
                assert answer == word


def test_words_differ_where_few_are_left(monkeypatch):
    # Four common letters: 256 words, 16 of them the same backwards.
    monkeypatch.setattr(words_module, "NUM_LETTERS", 12)
    sets = prompt_sets("positive", {"train": 110, "held": 110}, seed=0)
    words = [tuple(word) for part in sets.values() for word in part.prompts[:, 1:5].tolist()]
    assert len(set(words)) == 220


def test_seeds_and_regimes_draw_other_words():
    def words(regime, seed):
        return {tuple(x) for x in prompt_sets(regime, SIZES, seed)["train"].prompts.tolist()}

    assert words("zero", 0) == words("zero", 0)
    assert not words("zero", 0) & words("zero", 1)
