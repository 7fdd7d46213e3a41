import pytest
import torch

from passgrad.measurement.kept import Kept


def test_a_tensor_is_computed_once_for_each_input(tmp_path):
    kept, calls = Kept(tmp_path), []

    def get(x):
        def compute():
            calls.append(x)
            return x * 2

        return kept.tensor("double", x, compute=compute)

    for _ in range(2):
        assert torch.equal(get(torch.tensor([1.0, 2.0])), torch.tensor([2.0, 4.0]))
    assert torch.equal(get(torch.tensor([1, 2])), torch.tensor([2, 4]))
    assert get(torch.tensor([[1.0], [2.0]])).shape == (2, 1)
    assert len(calls) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_names_are_kept_apart(tmp_path):
    kept, x = Kept(tmp_path), torch.ones(1)
    assert kept.tensor("one", x, compute=lambda: x) == 1
    assert kept.tensor("two", x, compute=lambda: 2 * x) == 2


def test_a_failure_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        Kept(tmp_path).tensor("name", torch.ones(1), compute=fail)
    assert not list(tmp_path.iterdir())


def test_without_a_folder_it_only_computes():
    assert Kept().tensor("name", compute=lambda: torch.ones(1)) == 1
