"""A policy with three answers to each of two prompts and three shared parameters; every outcome."""

import itertools

import torch

from passgrad.measurement import ScoreSamples
from passgrad.objectives import PassAtK

_GENERATOR = torch.Generator().manual_seed(5)
FEATURES = torch.randn(2, 3, 3, dtype=torch.float64, generator=_GENERATOR)
THETA = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
MASSES = torch.tensor([0.3, 0.7], dtype=torch.float64)

POLICY = (FEATURES @ THETA).softmax(dim=1)
SCORES = FEATURES - torch.einsum("xy,xyd->xd", POLICY, FEATURES)[:, None]
SUCCESS = POLICY[:, 0]  # the first answer is the right one
SLOPES = SUCCESS[:, None] * SCORES[:, 0]


def vectors(k):
    """w_k grad p: (2, d)."""
    return PassAtK(k).weight(SUCCESS)[:, None] * SLOPES


def exact(k, j=1):
    """<grad J_k, grad J_j> under MASSES."""
    return float((MASSES @ vectors(k)) @ (MASSES @ vectors(j)))


def outcomes(kinds, num_samples, masses):
    """Every sample of answers to prompts of the given ``kinds``, and its probability.

    A kind is 0 or 1, or None for a prompt that is one of the two, drawn with MASSES.
    """
    options = []
    for kind in kinds:
        choices = (0, 1) if kind is None else (kind,)
        options.append(
            [
                (x, answers, float(MASSES[x]) if kind is None else 1.0)
                for x in choices
                for answers in itertools.product(range(3), repeat=num_samples)
            ]
        )
    sizes = [torch.arange(len(option)) for option in options]
    places = torch.cartesian_prod(*sizes).reshape(-1, len(kinds))
    x, answers, chance = [], [], torch.ones(len(places), dtype=torch.float64)
    for column, option in enumerate(options):
        kind = torch.tensor([one[0] for one in option])[places[:, column]]
        drawn = torch.tensor([one[1] for one in option])[places[:, column]]
        prior = torch.tensor([one[2] for one in option], dtype=torch.float64)
        chance *= prior[places[:, column]] * POLICY[kind[:, None], drawn].prod(dim=1)
        x.append(kind)
        answers.append(drawn)
    kind, drawn = torch.stack(x, dim=1), torch.stack(answers, dim=1)
    samples = ScoreSamples((drawn == 0).double(), SCORES[kind[..., None], drawn], masses)
    return samples, chance


def one_of(samples, place):
    """A single outcome."""
    return ScoreSamples(samples.rewards[place], samples.scores[place], samples.masses)
