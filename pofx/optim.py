"""Builds a player's optimizers from its `Optimizer` config, and its learning rate from progress alone."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pofx.core import Optimizer, Player


def ramp(config: Optimizer, progress: float) -> float:
    """The factor on the learning rate at `progress` in [0, 1]: linear warm-up, then a fall along the chosen curve."""
    factor = min(1.0, progress / config.warmup) if config.warmup > 0 else 1.0
    start = max(config.decay_start, config.warmup)
    if config.decay == "constant" or progress <= start:
        return factor
    done = min(1.0, (progress - start) / max(1e-12, 1.0 - start))
    left = 1.0 - done if config.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return factor * (config.final + (1.0 - config.final) * left)


def _is_matrix(module: nn.Module | None, parameter: nn.Parameter) -> bool:
    """Whether Muon moves it: a linear layer's weight, unless the layer opts out (an output head)."""
    return isinstance(module, nn.Linear) and parameter.ndim == 2 and getattr(module, "moved_as_matrix", True)


def build(player: Player) -> list[torch.optim.Optimizer]:
    """The optimizers of one player; each group keeps its full learning rate as `base_lr`.

    References:
        Adam: A Method for Stochastic Optimization (Kingma and Ba, 2015), https://arxiv.org/abs/1412.6980
        Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2019), https://arxiv.org/abs/1711.05101
        ADADELTA: An Adaptive Learning Rate Method (Zeiler, 2012), https://arxiv.org/abs/1212.5701
        Muon: An optimizer for hidden layers in neural networks (Jordan et al., 2024), https://kellerjordan.github.io/posts/muon/
    """
    config = player.optimizer
    owned = player.parameters()
    parameters = [parameter for _, parameter in owned]
    built: list[torch.optim.Optimizer] = []
    if config.name == "muon":
        matrices = [parameter for module, parameter in owned if _is_matrix(module, parameter)]
        if matrices:
            built.append(torch.optim.Muon(matrices, lr=config.matrix_lr, momentum=config.momentum, weight_decay=config.weight_decay))
        chosen = {id(parameter) for parameter in matrices}
        parameters = [parameter for parameter in parameters if id(parameter) not in chosen]
    if parameters:
        built.append(_build(config, parameters))
    for optimizer in built:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return built


def _build(config: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    adam = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay, "fused": True}
    match config.name:
        case "adam":
            return torch.optim.Adam(parameters, **adam)  # type: ignore[arg-type]
        case "adamw" | "muon":
            return torch.optim.AdamW(parameters, **adam)  # type: ignore[arg-type]
        case "adadelta":
            # rho is that of the paper's experiments.
            return torch.optim.Adadelta(parameters, lr=config.lr, rho=0.95, eps=config.eps, weight_decay=config.weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Scales every group's full learning rate by `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together. A dense tensor is read in the order of its memory, whatever its layout: a
    dot product with itself is the fastest pass over it that the CPU has."""
    flat = [gradient.as_strided((gradient.numel(),), (1,)) if _dense(gradient) else gradient.reshape(-1) for gradient in gradients]
    return torch.stack([torch.dot(part, part) for part in flat]).sum().sqrt() if flat else torch.zeros(())


def _dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def clip(gradients: Sequence[Tensor], norm: Tensor, limit: float) -> None:
    """Scales all gradients so that their `norm` is at most `limit`."""
    if norm.device.type == "cpu" and norm.item() <= limit:
        return  # on an accelerator it would cost more to ask than to multiply by one
    torch._foreach_mul_(gradients, (limit / (norm + 1e-12)).clamp_(max=1.0))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def state(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What a player's optimizers remember, by name: OPTIMIZER/PARAMETER/KEY, the first two counted."""
    return {
        f"{number}/{k}/{key}": value
        for number, optimizer in enumerate(optimizers)
        for k, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore(optimizers: Sequence[torch.optim.Optimizer], saved: Mapping[str, Tensor]) -> None:
    """Gives optimizers the memory that `state` told."""
    for name, value in saved.items():
        number, k, key = name.split("/")
        optimizer = optimizers[int(number)]
        parameter = _parameters(optimizer)[int(k)]
        # A parameter's companions keep its memory layout: fused kernels walk them side by side.
        like = parameter if value.shape == parameter.shape else value
        kept = torch.empty_like(like, dtype=value.dtype, device=parameter.device).detach()
        optimizer.state[parameter][key] = kept.copy_(value)
