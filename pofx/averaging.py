"""Averaged weights: a second instance of the model, which sampling and evaluation use."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pofx.core import Model, Player


class Average:
    """An exponential moving average of a model: floating tensors are averaged, integers copied, the clock copied.

    A player carries its parameters and the buffers of its modules; the first one carries the buffers that nobody owns.
    Each is averaged over the moves of its player. A model without players, which nothing moves, is its own average.

    References:
        Acceleration of Stochastic Approximation by Averaging (Polyak and Juditsky, 1992), https://doi.org/10.1137/0330046
    """

    def __init__(self, model: Model, players: Sequence[Player], *, decay: float) -> None:
        self.decay, self.source = decay, model
        # Not `type(model)(spec, config)`: it may hold networks that no config describes.
        self.model = copy.deepcopy(model).eval().requires_grad_(False) if players else model
        self._groups = self._pair(players)

    def _pair(self, players: Sequence[Player]) -> list[tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]]:
        """For each player: (averages, values) of floating tensors, and the pairs of integers that are copied."""
        averages = self.model.state_dict(keep_vars=True)
        values = {name: value for name, value in self.source.state_dict(keep_vars=True).items() if name != "progress"}
        names = {id(value): name for name, value in values.items()}
        claimed: set[str] = set()
        groups: list[list[str]] = []
        for player in players:
            mine = [names[id(parameter)] for _, parameter in player.parameters()]
            buffers = [buffer for owned in player.owns if isinstance(owned, nn.Module) for buffer in owned.buffers()]
            mine += [names[id(buffer)] for buffer in buffers if id(buffer) in names and names[id(buffer)] not in claimed]
            claimed.update(mine)
            groups.append(list(dict.fromkeys(mine)))
        if groups:
            groups[0] += [name for name in values if name not in claimed]
        result = []
        for group in groups:
            floating = [name for name in group if values[name].is_floating_point()]
            copied = [(averages[name].detach(), values[name].detach()) for name in group if not values[name].is_floating_point()]
            result.append(([averages[n].detach() for n in floating], [values[n].detach() for n in floating], copied))
        return result

    @torch.no_grad()
    def update(self, index: int, n: int) -> None:
        """Takes in the n-th move (from 0) of the player at `index`, with decay min(d, (1 + n) / (10 + n))."""
        averages, values, copied = self._groups[index]
        share = 1.0 - min(self.decay, (1 + n) / (10 + n))
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, share)
        for average, value in copied:
            average.copy_(value)
        self.model.progress.copy_(self.source.progress)

    @torch.no_grad()
    def adopt(self, index: int) -> None:
        """The averaged weights of the player at `index` become its weights."""
        averages, values, _ = self._groups[index]
        for average, value in zip(averages, values, strict=True):
            value.copy_(average)
