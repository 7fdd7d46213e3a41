"""The parts that a model is divided into."""

import pytest
import torch

from passgrad.lm.groups import HIDDEN_STATE, OUTPUT_USE, groups_of, parts_of
from passgrad.lm.head import tied_output
from passgrad.lm.parameters import ParameterLayout


def parts(model):
    return parts_of(ParameterLayout(model), tied_output=tied_output(model))


def named(model, kind):
    return {part.name: part.units for part in parts(model) if part.kind == kind}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma"])
def test_layers_and_groups_divide_the_parameters(tiny_model, architecture, tied):
    model = tiny_model(architecture, tied=tied)
    every = list(ParameterLayout(model).shapes)
    assert next(iter(named(model, "whole").values())) == tuple(every)
    for kind in ("layer", "group"):
        units = [unit for some in named(model, kind).values() for unit in some]
        assert sorted(units) == sorted(every)
    layers = list(named(model, "layer"))
    expected = ["embedding", "block 0", "block 1", "final norm"]
    assert layers == (expected if tied else [*expected, "output layer"])


@pytest.mark.parametrize(("architecture", "gain"), [("llama", "model.norm"), ("gpt2", "ln_f")])
@pytest.mark.parametrize("tied", [True, False])
def test_three_readings_of_the_final_layer(tiny_model, architecture, gain, tied):
    found = named(tiny_model(architecture, tied=tied), "final")
    assert list(found) == ["final norm gain", "final hidden state", "output layer"]
    [name] = found["final norm gain"]
    assert name.endswith(f"{gain}.weight")
    assert found["final hidden state"] == (HIDDEN_STATE,)
    assert found["output layer"] == ((OUTPUT_USE,) if tied else ("lm_head.weight",))


def test_norms_around_the_blocks_and_models_that_list_the_last_one_first():
    layout = ParameterLayout.__new__(ParameterLayout)
    names = (
        "decoder.embed_tokens.weight",
        "word_embeddings_layernorm.weight",
        "decoder.final_layer_norm.weight",
        "decoder.final_layer_norm.bias",
        "decoder.layers.0.self_attn.q_proj.weight",
        "decoder.layers.0.fc1.weight",
    )
    layout.shapes = dict.fromkeys(names, torch.Size([1]))
    found = {part.name: part.units for part in parts_of(layout) if part.kind != "group"}
    assert found["first norm"] == names[1:2]
    assert found["final norm"] == names[2:4]
    assert found["final norm gain"] == names[2:3]
    assert found["block 0"] == names[4:]
    assert set(groups_of(layout).values()) == {"embedding", "norm", "attention", "mlp"}
