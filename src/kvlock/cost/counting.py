"""Operations and memory of what runs on torch's meta device, counted as it passes."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Counter(TorchDispatchMode):
    """Floating-point operations outside and inside attention, and the most bytes alive at once.

    Attention is counted as a kernel computes it that never holds the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear_flops = self.peak_bytes = self._live = 0
        self._alive: set[int] = set()
        self._attention = _Attention()
        self._forms: dict[Any, tuple[torch.Size, tuple[int, ...], torch.dtype]] = {}

    @property
    def attention_flops(self) -> int:
        """Of queries with keys, and of weights with values."""
        return self._attention.flops

    def reset(self) -> None:
        """Count anew; what is alive stays so."""
        self.linear_flops = self._attention.flops = 0
        self.peak_bytes = self._live

    def __enter__(self) -> "Counter":
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = self._run(func, args, kwargs)
        flops = flop_registry.get(func.overloadpacket)
        if flops:
            self.linear_flops += flops(*args, **kwargs, out_val=result)
        # A view's storage is not new, nor is a weight's.
        given = {x.untyped_storage()._cdata for x in _tensors((args, kwargs.values()))}
        for tensor in _tensors((result,)):
            self._born(tensor.untyped_storage(), given)
        return result

    def _run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """`func`, or its result's form as it was the last time: layers repeat, and torch finds each
        form slowly. Results that are or may be views are left to torch."""
        key = _signature((func, args, tuple(kwargs.items())))
        if key in self._forms:
            size, stride, dtype = self._forms[key]
            return torch.empty_strided(size, stride, dtype=dtype, device="meta")
        result = func(*args, **kwargs)
        returns = func._schema.returns
        fresh = not func._schema.is_mutable and not any(r.alias_info for r in returns)
        if fresh and isinstance(result, Tensor) and result.is_meta:
            self._forms[key] = (result.shape, result.stride(), result.dtype)
        return result

    def _born(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in given or key in self._alive:
            return
        self._alive.add(key)
        self._live += size
        self.peak_bytes = max(self.peak_bytes, self._live)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._live -= size


class _Attention(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = enumerate(("query", "key", "value"))
        query, key, value = (kwargs[n] if n in kwargs else args[i] for i, n in names)
        self.flops += 2 * query.numel() * key.shape[-2]
        self.flops += 2 * query[..., 0].numel() * value[0, 0].numel()
        return query.new_empty(*query.shape[:-1], value.shape[-1])


def _signature(value: Any) -> Any:
    """What the form of an operation's result hangs on."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device, value.storage_offset()
    if isinstance(value, (tuple, list)):
        return tuple(map(_signature, value))
    return type(value), value


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif not isinstance(value, (str, bytes, torch.Size)) and isinstance(value, Iterable):
            yield from _tensors(value)


@torch.no_grad()
def peak_of(function: Callable[[], Any]) -> int:
    """The most bytes that tensors made in `function` take at once; on the meta device."""
    with Counter() as counter:
        function()
    return counter.peak_bytes
