"""Convolutions and rectifiers whose gradients cost only what they have to: the same numbers, with less work for them.

Two exchanges, both made while a network runs, so that no plugin needs to know of them:

- `cheap_double_backward`, for gradient penalties. PyTorch's double backward of a convolution returns a gradient, all
  zeros, for the saved input too, and so do its piecewise linear functions for theirs. A penalty that has its own forward
  pass then walks that forward back with zeros. The functions here do not keep what a second derivative of zero would need:
  their gradients for an input are again such functions, of the incoming gradient and the weight alone. For convolutions
  this is the remedy of StyleGAN2-ADA's conv2d_gradfix (Karras et al. 2020, arXiv:2006.06676); this code is our own.
- `small_map_products`, on a processor, for the formats that `products_pay` names. The library's kernel for the gradient of
  a weight runs at a half to three quarters of a matrix product's speed where the map is as small as 4x4: there it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["cheap_double_backward", "gradients_of_inputs_only", "products_pay", "small_map_products"]

SMALL = 16  # pixels of the smaller map up to which a product was the faster one (docs/performance.md)


def products_pay(dtype: torch.dtype) -> bool:
    """Is a matrix product the faster weight gradient of small maps on this processor? Measured in docs/performance.md.

    With 512-bit vectors it is in bfloat16 only: there float32 convolutions are twice as fast as the products.
    """
    return dtype == torch.bfloat16 or (dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX2")


_inputs_only = 0  # how many callers ask for gradients of inputs only; module-wide, as the engine has threads of its own


@contextmanager
def gradients_of_inputs_only() -> Iterator[None]:
    """Let the exchanged functions leave the gradients of weights out, since they are not told what is asked for."""
    global _inputs_only
    _inputs_only += 1
    try:
        yield
    finally:
        _inputs_only -= 1


class _Geometry:
    """How a convolution of any number of dimensions is laid out; `flipped` is that of its gradient for the input."""

    __slots__ = ("dilation", "groups", "output_padding", "padding", "stride", "transposed")

    def __init__(
        self,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ) -> None:
        self.stride, self.padding, self.dilation = list(stride), list(padding), list(dilation)
        self.transposed, self.output_padding, self.groups = transposed, list(output_padding), groups

    def flipped(self, size: Sequence[int], made: Sequence[int], kernel: Sequence[int]) -> _Geometry:
        """Return the convolution that takes a map of size `made` back to `size`."""
        extra = [0] * len(kernel)
        if not self.transposed:  # several sizes give the same map: say which one is meant
            for i, width in enumerate(kernel):
                least = (made[i] - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (width - 1) + 1
                extra[i] = size[i] - least
        return _Geometry(self.stride, self.padding, self.dilation, not self.transposed, extra, self.groups)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution."""
        return torch.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups
        )

    def weight_gradient(self, gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient for the weight, whose values do not matter."""
        small, large = (x, gradient) if self.transposed else (gradient, x)
        if self._suits_product(small):
            return self._product(small, large, weight.shape[2:])
        mask = [False, True, False]
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, self.stride, self.padding, self.dilation, self.transposed, self.output_padding,
            self.groups, mask,
        )[1]  # fmt: skip
        return found

    def _suits_product(self, small: Tensor) -> bool:
        plain = self.groups == 1 and small.ndim == 4 and all(step == 1 for step in self.dilation)
        pays = small.device.type == "cpu" and products_pay(small.dtype)
        return plain and pays and prod(small.shape[2:]) <= SMALL

    def _product(self, small: Tensor, large: Tensor, kernel: Sequence[int]) -> Tensor:
        """Return the weight's gradient [small's channels, large's channels, *kernel] as small^T times large's patches."""
        count, height, width = small.shape[0], small.shape[2], small.shape[3]
        (above, left), (down, right) = self.padding, self.stride
        below = max((height - 1) * down + kernel[0] - above - large.shape[2], 0)
        beyond = max((width - 1) * right + kernel[1] - left - large.shape[3], 0)
        padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, left, beyond, above, below))
        strides = padded.stride()
        patches = padded.as_strided(
            (count, height, width, *kernel, padded.shape[3]),
            (strides[0], strides[1] * down, strides[2] * right, *strides[1:]),
        )
        rows = count * height * width
        flat = small.permute(0, 2, 3, 1).reshape(rows, -1)
        made = flat.t() @ patches.reshape(rows, -1)
        return made.view(-1, *kernel, padded.shape[3]).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """A convolution or transposed convolution whose gradient for the input is again one, and does not hold the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return geometry.run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            geometry = ctx.geometry.flipped(x.shape[2:], gradient.shape[2:], weight.shape[2:])
            for_x = _Convolution.apply(gradient, weight, None, geometry)
        if ctx.needs_input_grad[1] and not _inputs_only:
            for_weight = _WeightGradient.apply(gradient, x, weight.detach(), ctx.geometry)
        if ctx.needs_input_grad[2] and not _inputs_only:
            for_bias = gradient.sum([0, *range(2, gradient.ndim)])
        return for_x, for_weight, for_bias, None


class _WeightGradient(torch.autograd.Function):
    """A convolution's gradient for its weight: linear in the incoming gradient and in the input."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(gradient, x)
        ctx.geometry = geometry
        return geometry.weight_gradient(gradient, x, weight)

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradient, x = ctx.saved_tensors
        for_gradient = for_x = None
        if ctx.needs_input_grad[0]:
            for_gradient = _Convolution.apply(x, second, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            geometry = ctx.geometry.flipped(x.shape[2:], gradient.shape[2:], second.shape[2:])
            for_x = _Convolution.apply(gradient, second, None, geometry)
        return for_gradient, for_x, None, None


class _Rectifier(torch.autograd.Function):
    """ReLU (slope 0) or LeakyReLU: the second derivative is zero, so nothing leads from the gradient back to the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu(x, slope) if slope else F.relu(x)
        ctx.save_for_backward(y)  # of the same sign as x, and what the next layer keeps anyway
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _RectifierGradient.apply(gradient, y.detach(), ctx.slope), None


class _RectifierGradient(torch.autograd.Function):
    """The gradient of a rectifier, linear in the incoming one: its own gradient is the same function."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        if slope:
            leaky: Tensor = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)
            return leaky
        plain: Tensor = torch.ops.aten.threshold_backward(gradient, y, 0)
        return plain

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return _RectifierGradient.apply(second, y, ctx.slope), None, None


def _lowered(*tensors: Tensor | None) -> Sequence[Tensor | None]:
    """Cast as autocast would have done for the function that is exchanged."""
    kind = next(tensor for tensor in tensors if tensor is not None).device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return [None if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype) for t in tensors]


def _tuple(value: int | Sequence[int], count: int) -> Sequence[int]:
    return [value] * count if isinstance(value, int) else [*value] * (count if len(value) == 1 else 1)


def _convolve(
    function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Mapping[str, Any]
) -> Tensor:
    count = weight.ndim - 2
    if isinstance(geometry["padding"], str) or x.ndim != weight.ndim:  # padding "same", or one sample without a batch
        return function(x, weight, bias, **geometry)
    spread = {key: _tuple(geometry.get(key, 0), count) for key in ("stride", "padding", "dilation", "output_padding")}
    x, weight, bias = _lowered(x, weight, bias)  # type: ignore[assignment]  # None stays None
    transposed = "output_padding" in geometry
    made: Tensor = _Convolution.apply(
        x, weight, bias, _Geometry(**spread, transposed=transposed, groups=geometry["groups"])
    )
    return made


def _forward(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return what stands in for conv1d, conv2d or conv3d."""

    def convolution(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:  # fmt: skip
        return _convolve(
            function, input, weight, bias, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        )

    return convolution


def _transposed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return what stands in for conv_transpose1d, conv_transpose2d or conv_transpose3d."""

    def convolution(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        geometry = {"stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups}
        return _convolve(function, input, weight, bias, {**geometry, "dilation": dilation})

    return convolution


def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    if inplace or not input.is_floating_point():
        return F.relu(input, inplace)
    made: Tensor = _Rectifier.apply(input, 0.0)
    return made


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    if inplace or negative_slope < 0:  # with a negative slope the result's sign does not tell the input's
        return F.leaky_relu(input, negative_slope, inplace)
    made: Tensor = _Rectifier.apply(input, negative_slope)
    return made


CONVOLUTIONS: Mapping[Any, Callable[..., Tensor]] = {
    **{function: _forward(function) for function in (F.conv1d, F.conv2d, F.conv3d)},
    **{function: _transposed(function) for function in (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)},
}
RECTIFIERS: Mapping[Any, Callable[..., Tensor]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    F.leaky_relu: _leaky_relu,
}


class _Exchange(TorchFunctionMode):
    """While this context is entered, some functions are others."""

    def __init__(self, others: Mapping[Any, Callable[..., Tensor]]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the other function where there is one."""
        return self.others.get(func, func)(*args, **(kwargs or {}))


def cheap_double_backward() -> AbstractContextManager[Any]:
    """Return the context in which a discriminator runs whose gradient for its input will be differentiated again."""
    return _Exchange({**CONVOLUTIONS, **RECTIFIERS})


def small_map_products() -> AbstractContextManager[Any]:
    """Return the context in which networks run whose convolutions' weights get their gradients as matrix products."""
    return _Exchange(CONVOLUTIONS)
