"""The most memory that tensors take at once within a computation, without doing it.

Fake tensors have shapes and dtypes, and no numbers: a model of any size is made of them in a
second. The computation is the one that is later done with numbers, so that what it holds follows
from it and not from a formula of an architecture.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Live(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            # A number is asked for, such as whether positions restart: in a packed row they do.
            return args[0].dtype != torch.bool
        for one in tree_leaves((args, kwargs or {})):
            if isinstance(one, torch.Tensor):  # what was there before does not count
                self._seen.add(one.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self._count(one.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def most_bytes(mode: FakeTensorMode, function: Callable[[], Any]) -> int:
    """The most bytes that what the function makes takes at once."""
    with mode, Live() as live:
        function()
    return live.most


def fake_model(config: Any, dtype: torch.dtype) -> tuple[FakeTensorMode, PreTrainedModel]:
    """A causal LM of a configuration without numbers, and the mode in which it computes."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model.to_empty(device="cpu")
    model.tie_weights()  # they come apart
    return mode, model.eval()
