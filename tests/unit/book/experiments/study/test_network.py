import pytest
import torch

from passgrad_book.experiments.study.network import (
    NUM_WEIGHTS,
    answer_logprobs,
    completion_logprobs,
    draw,
    fresh_weights,
    llama_of,
)
from passgrad_book.experiments.study.words import PROMPT_LENGTH, prompt_sets


@pytest.fixture(scope="module")
def words():
    return prompt_sets("negative", {"train": 12}, seed=0)["train"]


@pytest.fixture(scope="module")
def theta():
    # larger weights than at the start of training, so that attention and gates are not flat
    return 3 * fresh_weights(0)


def test_it_is_the_llama_of_transformers(theta, words):
    model = llama_of(theta)
    assert sum(weight.numel() for weight in model.parameters()) == NUM_WEIGHTS
    with torch.no_grad():
        logits = model(torch.cat([words.prompts, words.answers], 1)).logits
    logprobs = logits[:, PROMPT_LENGTH - 1 : -1].log_softmax(-1)
    plain = logprobs.gather(2, words.answers[:, :, None]).sum((1, 2))
    torch.testing.assert_close(
        answer_logprobs(theta, words.prompts, words.answers), plain, rtol=1e-4, atol=1e-4
    )


def test_the_tree_has_the_log_probabilities_and_gradients_of_whole_rows(theta, words):
    tokens = draw(theta, words.prompts, 5, torch.Generator().manual_seed(0))
    # many completions that are equal, and some that only begin alike
    tokens[:, 1] = tokens[:, 0]
    tokens[:, 2, :2] = tokens[:, 0, :2]
    weights = torch.linspace(-1, 1, 60).reshape(12, 5)
    leaf = theta.clone().requires_grad_()
    tree = completion_logprobs(leaf, words.prompts, tokens)
    (tree_gradient,) = torch.autograd.grad((weights * tree).sum(), leaf)
    rows = answer_logprobs(
        leaf, words.prompts.repeat_interleave(5, 0), tokens.flatten(0, 1)
    ).reshape(12, 5)
    (row_gradient,) = torch.autograd.grad((weights * rows).sum(), leaf)
    torch.testing.assert_close(tree, rows, rtol=1e-4, atol=1e-4)
    assert (tree_gradient - row_gradient).norm() < 1e-4 * row_gradient.norm()


def test_what_is_drawn_follows_the_probabilities(theta, words):
    # The chance of the first token of each prompt, against its share of many draws.
    tokens = draw(theta, words.prompts, 4000, torch.Generator().manual_seed(1))
    model = llama_of(theta)
    with torch.no_grad():
        chances = model(words.prompts).logits[:, -1].softmax(-1)
        last = model(torch.cat([words.prompts[:1], tokens[0, :1, :3]], 1)).logits[0, -1]
    shares = torch.nn.functional.one_hot(tokens[:, :, 0], chances.shape[1]).double().mean(1)
    error = (chances * (1 - chances) / 4000).sqrt()
    assert ((shares - chances).abs() < 5 * error + 1e-3).all()
    # The last token, given that the first three are those of completion 0.
    same = (tokens[0, :, :3] == tokens[0, 0, :3]).all(1)
    share = torch.bincount(tokens[0, same, 3], minlength=chances.shape[1]) / same.sum()
    assert float((share - last.softmax(-1)).abs().max()) < 5 * 0.5 / float(same.sum()) ** 0.5
