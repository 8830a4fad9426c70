"""Held-out examples, the same under the noise of the training, and what the model makes of them."""

from matplotlib.figure import Figure

from pofx import examples, figures
from pofx.core import Denoises, Model
from pofx.data.dataset import Dataset
from pofx.data.images import grid
from pofx.figures.reconstructions import COLUMNS, blocks
from pofx.metrics import psnr, ssim
from pofx.run import Run

needs, kinds = (Denoises,), ("images",)

#: Images that PSNR and SSIM are means over.
MEASURED = 500


def draw(model: Model, dataset: Dataset, *, run: Run | None = None, seed: int = 0) -> Figure:
    """The first held-out images."""
    part, held = examples.held_out(dataset)
    clean = examples.first(held, MEASURED).x
    noisy = examples.corrupt(model, clean, seed=seed)
    restored = examples.denoise(model, noisy)
    rows = ["clean"]
    for name, x in (("noisy", noisy), ("restored", restored)):
        rows.append(f"{name}\n{float(psnr(clean, x).mean()):.1f} dB\nSSIM {float(ssim(clean, x).mean()):.2f}")
    shown = blocks([x[:COLUMNS] for x in (clean, noisy, restored)])
    title = f"{part} images; PSNR and SSIM are means of {len(clean):,}"
    return figures.picture(grid(shown, min(COLUMNS, len(clean))), title, run, rows=tuple(rows))
