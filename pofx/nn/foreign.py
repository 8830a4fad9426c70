"""Networks of one's own: a module from outside becomes a model's encoder or decoder, checked before any training.

Any model takes them whose `__init__` has keyword-only arguments for them: `def __init__(self, spec, config, *, encoder=None)`,
each wrapped in a `Foreign` of the same name. No file can name them, so that whoever loads such a model gives them again;
its checkpoint records the names and shapes of their tensors.
"""

import copy
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pofx.core import Model, Network, UsageError

TRIED = 2
"""Examples of the dry run."""


class Foreign(Network):
    """A copy of a network from outside; computes in the precision in force and returns float32.

    A dry run shows whether it fits. Raises `UsageError` where it does not.

    Arguments:
        network: any module from one tensor to one tensor; left as it is.
        name: the argument as which it was given.
        in_shape, out_shape: of one example.
    """

    def __init__(self, network: nn.Module, name: str, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()
        self._try(name, (TRIED, *in_shape), (TRIED, *out_shape))

    def _try(self, name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        x = torch.rand(given, generator=torch.Generator().manual_seed(0))
        training = self.network.training
        try:
            # Nothing of it may stay: no step of a running mean, no number taken from the global generator.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                y = self.network.eval()(x)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UsageError(f"the given {name} fails on an input of shape {given}: {reason}") from error
        finally:
            self.network.train(training)
        if not isinstance(y, Tensor):
            raise UsageError(f"the given {name} must return one tensor, not {type(y).__name__}")
        if tuple(y.shape) != wanted:
            # As many numbers in another shape want a layer more, others other layers.
            same = y.numel() == math.prod(wanted) and len(y) == wanted[0]
            mend = f"end it with nn.Unflatten(1, {wanted[1:]})" if same else "change its layers, or the length of the code (latent_dim)"
            raise UsageError(
                f"the given {name} turns an input of shape {given} into {tuple(y.shape)}, where the model needs {wanted}: {mend}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Foreign":
        # Models are moved to channels_last, which somebody else's `view` of an image may not survive. A clone, since of one
        # channel `contiguous()` would keep the strides by which convolutions choose their layout.
        return super()._apply(lambda tensor: fn(tensor).clone(memory_format=torch.contiguous_format), recurse)

    def compute(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """What the network says, as float32."""
        return self.network(x).float()

    @property
    def fingerprint(self) -> str:
        """A hash of the names and shapes of its parameters and buffers."""
        tensors = sorted((name, list(value.shape)) for name, value in self.network.state_dict().items())
        return hashlib.sha256(json.dumps(tensors).encode()).hexdigest()[:16]


def take(cls: type[Model], name: str, values: Mapping[str, Any]) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The networks that are among `values`, and the other values.

    Raises `UsageError` for a network that the model called `name` has no argument for, and for an argument that is none.
    """
    accepted = {p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY}
    networks = {key: value for key, value in values.items() if value is not None and (key in accepted or isinstance(value, nn.Module))}
    for key, value in networks.items():
        if key not in accepted:
            takes = f"takes {' and '.join(sorted(accepted))}" if accepted else "takes none"
            raise UsageError(f"{name} takes no network {key} of your own: it {takes}")
        if not isinstance(value, nn.Module):
            raise UsageError(f"{key} must be a torch.nn.Module, not {type(value).__name__}")
    return networks, {key: value for key, value in values.items() if key not in accepted}


def custom(model: Model) -> dict[str, str]:
    """The fingerprint of each network of a model that came from outside, by its name."""
    return {name: module.fingerprint for name, module in model.named_children() if isinstance(module, Foreign)}


def check(recorded: Mapping[str, str], networks: Mapping[str, nn.Module], where: str) -> None:
    """Raises `UsageError` unless `networks` has those that were recorded in `where`, and no others."""
    if set(recorded) - set(networks):
        wanted = " and ".join(f"a custom {name}" for name in recorded)
        arguments = ", ".join(f"{name}=..." for name in recorded)
        raise UsageError(
            f"{where} was trained with {wanted}, which no file holds and only Python can give: pofx.load({where!r}, {arguments}), "
            f"or pofx.train(..., run={where!r}, resume=True, {arguments})"
        )
    for name in sorted(set(networks) - set(recorded)):
        raise UsageError(f"{where} was trained with the model's own {name}: leave {name}= out")


def check_same(recorded: Mapping[str, str], model: Model, where: str) -> None:
    """Raises `UsageError` where a network has other tensors than the one that was recorded in `where`."""
    for name, fingerprint in custom(model).items():
        if fingerprint != recorded[name]:
            raise UsageError(
                f"the given {name} is not the one that {where} was trained with: names or shapes of its parameters differ; "
                "build it as it was built then"
            )


def check_trainable(networks: Mapping[str, nn.Module]) -> None:
    """Raises `UsageError` for a frozen parameter: players move all that they own."""
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            if not parameter.requires_grad:
                raise UsageError(
                    f"the parameter {key} of the given {name} is frozen, and training would move it: "
                    "let it require gradients, or register it as a buffer"
                )
