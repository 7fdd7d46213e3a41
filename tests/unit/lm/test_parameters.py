"""The flat vector of a model's parameters."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.parameters import ParameterLayout


@pytest.mark.parametrize("tied", [True, False])
def test_round_trip(tiny_model, tied):
    model, other = tiny_model(tied=tied, seed=0), tiny_model(tied=tied, seed=1)
    layout = ParameterLayout(model)
    theta = layout.flatten(model)
    assert theta.shape == (layout.num_parameters,)
    assert layout.dtype == torch.float64
    layout.load(other, theta)
    assert torch.equal(layout.flatten(other), theta)
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert (other.get_output_embeddings().weight is other.get_input_embeddings().weight) == tied


def test_a_tied_matrix_stands_once(tiny_model):
    tied, untied = (ParameterLayout(tiny_model(tied=tied)) for tied in (True, False))
    head = untied.shapes["lm_head.weight"]
    assert "lm_head.weight" not in tied.shapes
    assert untied.num_parameters - tied.num_parameters == head.numel()


def test_flatten_copies_and_views_do_not(tiny_model):
    model = tiny_model()
    layout = ParameterLayout(model)
    theta = layout.flatten(model)
    name, first = next(iter(layout.views(theta).items()))
    first.fill_(7)
    assert (theta[: first.numel()] == 7).all()
    assert not (dict(model.named_parameters())[name] == 7).any()


def test_mixed_dtypes_are_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).double())
    with pytest.raises(UserError, match="dtypes .*float32.*float64.*; load it in one dtype"):
        ParameterLayout(model)


def test_no_parameters_are_refused():
    with pytest.raises(UserError, match="no parameters"):
        ParameterLayout(torch.nn.ReLU())
