import re
import warnings

import pytest

from passgrad import UserError
from passgrad.trl.settings import enforce, find_biases, warn_clipping

GRPO = [
    ({"scale_rewards": "group"}, "scale_rewards"),
    ({"scale_rewards": "batch"}, "scale_rewards"),
    ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation"),
    *(
        ({"loss_type": name}, "loss_type")
        for name in ("grpo", "dapo", "bnpo", "cispo", "sapo", "vespo")
    ),
    ({"beta": 0.1}, "beta"),
    ({"top_entropy_quantile": 0.5}, "top_entropy_quantile"),
    ({"entropy_coef": 0.1}, "entropy_coef"),
    ({"use_adaptive_entropy": True}, "use_adaptive_entropy"),
    ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold"),
    ({"delta": 1.0}, "delta"),
    ({"use_vllm": True}, "vllm_importance_sampling_correction"),
]
BOTH = [
    ({"temperature": 0.7}, "temperature"),
    ({"top_p": 0.9}, "top_p"),
    ({"top_k": 20}, "top_k"),
    ({"min_p": 0.1}, "min_p"),
    ({"repetition_penalty": 1.1}, "repetition_penalty"),
    ({"generation_kwargs": {"do_sample": False}}, "generation_kwargs['do_sample']"),
    ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs['num_beams']"),
    ({"num_iterations": 2}, "num_iterations"),
    ({"steps_per_generation": 2}, "steps_per_generation"),
    ({"mask_truncated_completions": True}, "mask_truncated_completions"),
]
RLOO = [({"beta": 0.05}, "beta"), ({"normalize_advantages": True}, "normalize_advantages")]
FINAL = {"multi_objective_aggregation"}
CASES = [("grpo", *one) for one in GRPO + BOTH] + [("rloo", *one) for one in RLOO + BOTH]


@pytest.mark.parametrize(("kind", "options", "name"), CASES)
def test_every_setting_that_changes_the_objective(lab, tmp_path, kind, options, name):
    args = lab.make_config(tmp_path, kind, **options)
    (found,) = find_biases(args, kind)
    assert found.setting == name
    assert "\n" not in str(found)
    assert len(found.reason) > 20
    with pytest.raises(UserError, match=re.escape(name)) as error:
        enforce([found], allow_biased=False)
    assert "\n" not in str(error.value)
    if found.final:
        assert name in FINAL or (kind == "rloo" and name == "beta")
        with pytest.raises(UserError, match="would not ascend"):
            enforce([found], allow_biased=True)
    else:
        assert "allow_biased=True" in str(error.value)
        with pytest.warns(UserWarning, match="let through") as told:
            assert enforce([found], allow_biased=True) == [found]
        assert len(told) == 1


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_exact_settings_pass(lab, tmp_path, kind):
    args = lab.make_config(tmp_path, kind)
    assert find_biases(args, kind) == []
    # Several generations within one update are all on policy.
    args = lab.make_config(tmp_path, kind, gradient_accumulation_steps=4, steps_per_generation=2)
    assert find_biases(args, kind) == []


def test_the_defaults_of_trl_do_not_pass(tmp_path):
    from trl import GRPOConfig, RLOOConfig

    plain = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    assert [one.setting for one in find_biases(GRPOConfig(**plain), "grpo")] == [
        "scale_rewards",
        "loss_type",
    ]
    assert [one.setting for one in find_biases(RLOOConfig(**plain), "rloo")] == ["beta"]


def test_clipping_is_a_warning(lab, tmp_path):
    with pytest.warns(UserWarning, match="max_grad_norm=1 rescales"):
        warn_clipping(lab.make_config(tmp_path, max_grad_norm=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_clipping(lab.make_config(tmp_path, max_grad_norm=1e9))
        warn_clipping(lab.make_config(tmp_path, max_grad_norm=0.0))


def test_one_warning_lists_them_all(lab, tmp_path):
    args = lab.make_config(tmp_path, loss_type="dapo", temperature=0.5)
    with pytest.warns(UserWarning, match="temperature=0.5.*; .*loss_type='dapo'") as told:
        enforce(find_biases(args, "grpo"), allow_biased=True)
    assert len(told) == 1
