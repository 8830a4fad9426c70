"""What may come next: the likeliest tokens after a prompt, with their probabilities, and how surprising the prompt's own tokens were."""

import math

import numpy as np
import torch
from jaxtyping import Int64
from matplotlib.figure import Figure
from torch import Tensor

from pofx import asked, examples, figures
from pofx.core import Model, Predicts, UsageError
from pofx.data.dataset import Dataset
from pofx.data.text import line
from pofx.run import Run

needs = (Predicts,)

#: Tokens that may come next, and tokens of the prompt that are shown.
LIKELIEST, SHOWN = 20, 48
#: Signs of a title.
TITLE = 60


def prompts(model: Model, dataset: Dataset, prompt: str | None) -> Int64[Tensor, " time"]:
    """The tokens of a prompt; by default the first quarter of a window of the held-out text. Raises `UsageError` for an empty one."""
    if prompt is None:
        held = examples.held_out(dataset)[1]
        length = min(len(held), max(1, (model.window or 4 * SHOWN) // 4))
        return held.batch(torch.tensor([0]), window=length).x[0]
    if not prompt:
        raise UsageError("--prompt is empty: give the text whose continuation is meant")
    return asked.text(dataset.codec, prompt).long()


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0, prompt: str | None = None) -> Figure:
    """Bars of the probabilities after the prompt, above the bits of each of its last tokens."""
    given = prompts(model, dataset, prompt)
    # One more place, whose own symbol has no influence on what is expected there.
    x = torch.cat((given, given[:1]))[None].to(model.device)
    with examples.asking(model):
        log_p = model.logits(x)[0].double().log_softmax(-1).cpu()  # type: ignore[operator]
    chances, order = log_p[-1].exp().sort(descending=True, stable=True)
    bits = (-log_p[:-1].gather(1, given[:, None])[:, 0] / math.log(2))[-SHOWN:].numpy()
    likeliest = [line(text) for text in dataset.codec.show(order[:LIKELIEST, None])]
    entropy = float(torch.special.entr(chances).sum()) / math.log(2)
    shown = line("".join(map(str, dataset.codec.show(given[None]))))
    title = f"after “{'…' if len(shown) > TITLE else ''}{shown[-TITLE:]}”: {entropy:.2f} bits to come"
    figure, (above, below) = figures.canvas(title, 9.0, 5.4, nrows=2, height_ratios=[3, 2], run=run)
    above.bar(np.arange(len(likeliest)), chances[: len(likeliest)].numpy(), color=figures.colour(0))
    above.set_xticks(np.arange(len(likeliest)), [f"“{text}”" if text.strip() != text else text for text in likeliest], fontsize=9)
    above.set_ylabel("probability of being next")
    below.bar(np.arange(len(bits)), bits, color=figures.GENERATED)
    tokens = [line(text) for text in dataset.codec.show(given[-SHOWN:, None])]
    below.set_xticks(np.arange(len(bits)), tokens, fontsize=8)
    below.set_ylabel("bits of surprise")
    below.set_xlabel("the prompt's last tokens" if len(given) > len(bits) else "the prompt's tokens")
    for axes in (above, below):
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
    return figure
