"""In float32 what is remembered is what is read again, to rounding: logits agree, and draws part only where two candidates tie."""

import itertools

import pytest
import torch

from pofx.core import DataSpec, Noise, pick
from pofx.models.autoregressive.gpt import GPT
from pofx.models.autoregressive.made import MADE
from pofx.models.autoregressive.pixel_cnn import PixelCNN
from pofx.models.autoregressive.rnn import RNN

CLOSE = 1e-5
"""Of logits in units of the largest one of their place, or of 1 where all are smaller; of a random number and what it is compared with."""
N, LENGTH, VOCABULARY, SIDE = 16, 40, 20, 6
TEXT, IMAGE = DataSpec("tokens", (), size=1000, vocabulary=VOCABULARY), DataSpec("images", (1, SIDE, SIDE), size=1000, bits=1)


def drawn_at_random(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model.float().eval()


class Text:
    """A model of texts longer than its window."""

    length = LENGTH

    def __init__(self, model):
        self.model = drawn_at_random(model)

    def uniform(self):
        noise = Noise(1, N)
        return torch.cat([noise.uniform(1) for _ in range(LENGTH)], 1)

    def drawn(self):
        return self.model.sample(N, noise=Noise(1, N), length=LENGTH)

    def remembered(self, x):
        read = self.model.reader(x)
        return torch.stack([read(place) for place in range(LENGTH)], 1)

    def again(self, x):
        return self.model.logits(x)


class Pixels:
    """A PixelCNN, whose candidates are a dark and a bright pixel."""

    length = SIDE**2

    def __init__(self):
        self.model = drawn_at_random(PixelCNN(IMAGE, PixelCNN.Config(width=16, depth=3, kernel=3, first_kernel=5)))

    def uniform(self):
        return Noise(1, N).uniform(SIDE, SIDE, 1, 2)[..., 0, 0].flatten(1)

    def drawn(self):
        return self.model.sample(N, noise=Noise(1, N)).flatten(1).long()

    def remembered(self, x):
        x = x.float().view(N, 1, SIDE, SIDE)
        raster, found = self.model.network.raster(N), []
        for i in range(SIDE):
            pixel = raster.row(i, x[:, :, i - 1] if i else None)
            found += [self.model.network.head(pixel(j, x[:, :, i, j - 1] if j else None), x[:, :, i, j]) for j in range(SIDE)]
        return torch.stack(found, 1)

    def again(self, x):
        x = x.float().view(N, 1, SIDE, SIDE)
        return self.model.network(x, None).flatten(1, 2)


class Dense:
    """A MADE, whose first candidate is the bright pixel: it is drawn where the random number is small."""

    length = SIDE**2

    def __init__(self):
        self.model = drawn_at_random(MADE(IMAGE, MADE.Config(hidden=(64, 64))))

    def uniform(self):
        return Noise(1, N).uniform(SIDE**2, 2)[..., 0]

    def drawn(self):
        return 1 - self.model.sample(N, noise=Noise(1, N)).flatten(1).long()

    def remembered(self, x):
        read = self.model.network.reader(self.model._inputs(1.0 - x))
        bright = torch.cat([read(number) for number in range(1, self.length + 1)], 1)
        return torch.stack((bright, torch.zeros_like(bright)), -1)

    def again(self, x):
        bright = self.model.network(self.model._inputs(1.0 - x))
        return torch.stack((bright, torch.zeros_like(bright)), -1)


CASES = {
    "gpt": lambda: Text(GPT(TEXT, GPT.Config(window=16, width=32, depth=2, heads=2))),
    **{cell: lambda cell=cell: Text(RNN(TEXT, RNN.Config(cell=cell, window=16, width=32))) for cell in ("lstm", "gru", "plain")},
    "pixel_cnn": Pixels,
    "made": Dense,
}


def check_ties(one, other, logits, uniform):
    """Where rows of two draws first differ, the random number lies between their candidates' shares of the probability, to rounding."""
    for row, (a, b) in enumerate(zip(one, other, strict=True)):
        if torch.equal(a, b):
            continue
        place = int((a != b).nonzero()[0])
        first, last = sorted((int(a[place]), int(b[place])))
        borders = logits[row, place].double().softmax(-1).cumsum(-1)[first:last]
        distance = float((borders - uniform[row, place]).abs().min())
        assert distance <= CLOSE, f"row {row} parts at {place}, where nothing ties: {distance:g}"


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_is_remembered_is_what_is_read_again(name):
    case = CASES[name]()
    x, uniform = case.drawn(), case.uniform()
    remembered, again = case.remembered(x), case.again(x)
    assert remembered.dtype == again.dtype == torch.float32
    scale = again.abs().amax(-1, keepdim=True).clamp(min=1.0)
    assert float(((remembered - again) / scale).abs().max()) <= CLOSE
    # Candidates of like chances, so that numbers fall near borders.
    assert float(again.softmax(-1).amax(-1).mean()) < 0.95

    plain = torch.zeros_like(x)
    for place in range(case.length):
        plain[:, place] = pick(case.again(plain)[:, place].softmax(-1), uniform[:, place])
    assert len(plain.unique()) > 1
    check_ties(x, plain, again, uniform)


@torch.no_grad()
def test_a_draw_that_parts_where_nothing_ties_is_seen():
    case = CASES["gpt"]()
    x, uniform = case.drawn(), case.uniform()
    other, logits = x.clone(), case.again(x)
    other[3, 7] = (x[3, 7] + 5) % VOCABULARY
    with pytest.raises(AssertionError, match="row 3 parts at 7"):
        check_ties(x, other, logits, uniform)
    # The number stands on the very border of two candidates, which may then be told apart either way.
    for first, second in itertools.pairwise(range(VOCABULARY)):
        x[3, 7], other[3, 7] = first, second
        uniform[3, 7] = logits[3, 7].double().softmax(-1).cumsum(-1)[first]
        check_ties(x, other, logits, uniform)
