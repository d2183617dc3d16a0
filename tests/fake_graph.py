"""A CUDA graph for the CPU: the operations of a function are recorded once and run again on the same memory.

As on a GPU the capture leaves everything as it was, a number that is read on the host in it is an error, and Python
that runs in it runs once, at the capture. So code that captures and replays can be held to code that does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


def bare(content: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, content)


class Recorder(TorchDispatchMode):
    """Records operations, with the contents that memory from before the recording had before it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.own: set[int] = set()  # the memory that the recording itself has taken

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            raise RuntimeError(f"{func} reads a number on the host in a capture")
        args, kwargs = bare(args), bare(kwargs or {})
        named = zip(func._schema.arguments, args, strict=False)
        written = [value for one, value in named if one.alias_info and one.alias_info.is_write]
        written += [kwargs[one.name] for one in func._schema.arguments
                    if one.name in kwargs and one.alias_info and one.alias_info.is_write]  # fmt: skip
        for tensor in (leaf for leaf in tree_leaves(written) if isinstance(leaf, Tensor)):
            if tensor.untyped_storage().data_ptr() not in self.own:
                self.before.append((tensor, tensor.clone()))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **kwargs)
        made = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        self.own |= made - known
        self.operations.append((func, args, kwargs, bare(result)))
        return result

    def undo(self) -> None:
        for tensor, content in reversed(self.before):
            tensor.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Captures:
    """Stands in for `src.models.cuda.capture`, and counts."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, function: Callable[[], object], device: torch.device) -> Callable[[], None]:
        recorder, state = Recorder(), torch.get_rng_state()
        with recorder:
            function()
        recorder.undo()
        torch.set_rng_state(state)
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            recorder.replay()

        return replay
