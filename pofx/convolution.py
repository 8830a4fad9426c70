"""Convolutions whose gradients are differentiated again, as penalties on slopes do.

PyTorch computes the weight's share of such a second derivative by a convolution whose kernel is as large as the image, which is slow on
every device; it is the ordinary gradient of a weight, for which there is a quick routine.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

Gradients = tuple[Tensor | None, ...]


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within this context 2-D convolutions are computed so that the derivative of their gradients is quick. Their gradients, if asked for
    within it, are those of their inputs, not of their weights; outside, all are.

    References:
        Training Generative Adversarial Networks with Limited Data (Karras et al., 2020), whose code treats convolutions in this
        way, https://arxiv.org/abs/2006.06676
    """
    with _Convolutions() as mode:
        try:
            yield
        finally:
            mode.open = False


class _Convolutions(TorchFunctionMode):
    """Puts our convolution in the place of PyTorch's."""

    open = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d:
            return self.conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def conv2d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Tensor:
        """That of PyTorch, with its arguments."""
        if x.ndim != 4 or isinstance(padding, str):
            return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
        device = x.device.type
        if torch.is_autocast_enabled(device):
            # Functions of our own are not on autocast's list.
            dtype = torch.get_autocast_dtype(device)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        stride, padding, dilation = ([value] * 2 if isinstance(value, int) else list(value) for value in (stride, padding, dilation))
        return _Convolution.apply(x, weight, bias, (stride, padding, dilation, False, [0, 0], groups), self)


class _Convolution(Function):
    """y = x * weight + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...], mode: _Convolutions) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.mode = how, mode
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        needed = ctx.needs_input_grad
        mask = (needed[0], *(need and not ctx.mode.open for need in needed[1:3]))
        return (*_Gradients.apply(*gradients, *ctx.saved_tensors, ctx.how, mask), None, None)


class _Gradients(Function):
    """The gradients of x, weight and bias, given that of y: bilinear in y's and in what the convolution was of."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor, how: tuple[Any, ...], mask: tuple[bool, ...]) -> Gradients:
        ctx.save_for_backward(y, x, weight)
        ctx.set_materialize_grads(False)
        ctx.how = how
        return _gradients(y, x, weight, how, mask)

    @staticmethod
    def backward(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None) -> Gradients:
        y, x, weight = ctx.saved_tensors
        need_y, need_x, need_weight = ctx.needs_input_grad[:3]
        new_y, new_x, new_weight = None, None, None
        if need_y:
            parts = [
                torch.convolution(a, b, None, *ctx.how) for a, b in ((of_x, weight), (x, of_weight)) if a is not None and b is not None
            ]
            parts += [] if of_bias is None else [of_bias[:, None, None].expand_as(y)]
            new_y = sum(parts[1:], parts[0]) if parts else None
        if need_x and of_weight is not None:
            new_x = _gradients(y, x, of_weight, ctx.how, (True, False, False))[0]
        if need_weight and of_x is not None:
            new_weight = _gradients(y, of_x, weight, ctx.how, (False, True, False))[1]
        return new_y, new_x, new_weight, None, None


def _gradients(y: Tensor, x: Tensor, weight: Tensor, how: tuple[Any, ...], mask: Sequence[bool]) -> Gradients:
    return torch.ops.aten.convolution_backward(y, x, weight, [weight.shape[0]], *how, list(mask))
