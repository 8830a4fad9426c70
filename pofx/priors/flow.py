"""A normalizing flow, trained until held-out codes become no likelier: the density that follows any shape, given many codes."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
import zuko
from jaxtyping import Float
from torch import Tensor

from pofx.core import Noise, TrainingError, mix
from pofx.priors import Density
from pofx.progress import Steps

#: Transforms, and the widths of the network of each.
TRANSFORMS, HIDDEN = 5, (128, 128)
#: Codes up to this length have rational-quadratic splines: an affine map of one number after the other cannot part modes.
SPLINES = 8
#: Codes up to this length are turned number by number, longer ones half by half, which draws in two passes.
AUTOREGRESSIVE = 64
#: Moves at most, codes in each, and the moves between two looks at held-out codes.
MOVES, BATCH, LOOK = 5000, 256, 100
#: Looks without a better one after which training ends.
PATIENCE = 8
RATE, CLIP = 1e-3, 5.0


def _build(settings: Mapping[str, Any]) -> torch.nn.Module:
    shape = {key: value for key, value in settings.items() if key != "splines"}
    return zuko.flows.NSF(**shape) if settings["splines"] else zuko.flows.MAF(**shape)


class Prior(Density):
    """p(y) = N(f(y); 0, I) |det df/dy|, f a flow on standardised numbers, trained by maximum likelihood.

    f is masked autoregressive, of splines for up to 8 numbers and affine for more, or of affine coupling layers for more than 64.

    References:
        Neural Spline Flows (Durkan, Bekasov, Murray and Papamakarios, 2019), https://arxiv.org/abs/1906.04032
        Masked Autoregressive Flow for Density Estimation (Papamakarios, Pavlakou and Murray, 2017), https://arxiv.org/abs/1705.07057
        Density estimation using Real NVP (Dinh, Sohl-Dickstein and Bengio, 2017), for long codes, https://arxiv.org/abs/1605.08803
    """

    def __init__(self, flow: torch.nn.Module, scale: Tensor, settings: Mapping[str, Any]) -> None:
        # Drawn from in float64: an inverse of many steps must not depend on how many codes are drawn at once.
        self.flow, self.scale, self.settings = flow.to(torch.float64).requires_grad_(False), scale, settings

    @classmethod
    def fit(cls, y: Float[Tensor, "n features"], held: Float[Tensor, "m features"], *, seed: int, steps: Steps) -> "Prior":
        """The flow at the look at which the codes `held` were likeliest.

        Raises `TrainingError` where a loss is not finite.
        """
        scale = y.square().mean(0).sqrt()
        standard, unseen = ((part / scale).to(torch.float32) for part in (y, held))
        features = y.shape[1]
        passes = None if features <= AUTOREGRESSIVE else 2
        settings = {"features": features, "transforms": TRANSFORMS, "hidden_features": list(HIDDEN), "passes": passes}
        settings["splines"] = features <= SPLINES
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(mix(seed, "flow"))
            flow = _build(settings)
            best, highest, since = copy.deepcopy(flow.state_dict()), -math.inf, 0
            optimizer = torch.optim.Adam(flow.parameters(), lr=RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, MOVES)
            for move in steps.track(range(1, MOVES + 1), MOVES):
                loss = -flow().log_prob(standard[torch.randint(len(standard), (BATCH,))]).mean()
                if not bool(loss.isfinite()):
                    raise TrainingError("the likelihood of codes under the flow is not finite: take another --kind, or another --seed")
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
                optimizer.step()
                schedule.step()
                if move % LOOK:
                    continue
                with torch.no_grad():
                    score = float(flow().log_prob(unseen).mean())
                since += 1
                if score > highest:
                    best, highest, since = copy.deepcopy(flow.state_dict()), score, 0
                if since == PATIENCE:
                    break
            flow.load_state_dict(best)
        return cls(flow, scale, settings)

    @torch.no_grad()
    def draw(self, noise: Noise, *, temperature: float = 1.0) -> Float[Tensor, "n features"]:
        """The inverse of normal numbers, which `temperature` multiplies."""
        base = noise.normal(len(self.scale)).cpu().to(torch.float64)
        return self.scale * self.flow().transform.inv(temperature * base)

    @torch.no_grad()
    def log_prob(self, y: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        """log p(y)."""
        return self.flow().log_prob(y / self.scale) - self.scale.log().sum()

    def state(self) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """What the flow is made of; its weights as they were trained, and the scale."""
        weights = {
            f"flow/{name}": value.to(torch.float32) if value.is_floating_point() else value
            for name, value in self.flow.state_dict().items()
        }
        return self.settings, {"scale": self.scale, **weights}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Prior":
        """The flow of `state`."""
        flow = _build(settings)
        flow.load_state_dict({name.removeprefix("flow/"): value for name, value in tensors.items() if name.startswith("flow/")})
        return cls(flow, tensors["scale"], settings)

    def describe(self) -> str:
        """The kind of flow."""
        if self.settings["splines"]:
            kind = "a neural spline flow"
        else:
            kind = "a masked autoregressive flow" if self.settings["passes"] is None else "a flow of coupling layers"
        return f"{kind} of {self.settings['transforms']} transforms"
