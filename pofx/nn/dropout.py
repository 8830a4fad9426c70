"""Dropout whose random numbers are cheap on a CPU, where `nn.Dropout` spends most of its time on them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout`: in training mode it silences a share p of the features, each for itself, and multiplies the others by 1 / (1 - p).

    References:
        Improving neural networks by preventing co-adaptation of feature detectors (Hinton et al., 2012), https://arxiv.org/abs/1207.0580
    """

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """x, of any shape."""
        return x * spared(x, self.p) if self.training and self.p else x


@torch.no_grad()
def spared(like: Float[Tensor, "..."], p: float) -> Float[Tensor, "..."]:
    """0 with probability p, and else 1 / (1 - p), each number for itself by the global generator; of the shape, the type and the order in
    memory of `like`."""
    # Each random number of 64 bits is four of 16: p is rounded to multiples of 2^-16.
    level = round(p * 2**16)
    if like.device.type != "cpu" or not 0 < level < 2**16:
        return nn.functional.dropout(torch.ones_like(like), p)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16).as_strided(like.shape, torch.empty_like(like).stride())
    return (bits >= level - 2**15).to(like.dtype).div_(1 - p)
