"""Examples as readers of the data know them: a few rows of a table, pieces of text; real ones before those of each model."""

from collections.abc import Mapping

from jaxtyping import Shaped
from torch import Tensor

from pofx import discovery, examples, page
from pofx.core import Model, Samples
from pofx.data.dataset import Dataset

#: Rows of a table, texts, and lines of one text that are shown of each model.
ROWS, TEXTS, LINES = 5, 2, 16
#: At which texts are drawn, where a model has one: likely ones, bolder ones, and those of the model's own distribution.
TEMPERATURES = (0.5, 0.8, 1.0)


def readable(dataset: Dataset) -> bool:
    """Whether examples are better read than looked at: rows of tables and texts."""
    return dataset.spec.kind == "tokens" or bool(dataset.spec.columns)


def draw(model: Model, dataset: Dataset) -> Shaped[Tensor, "n ..."]:
    """As many samples as are shown, a function of one seed. Raises `UsageError` for a model that draws nothing."""
    discovery.require(model, Samples, what="the list of samples")
    return examples.draw(model, TEXTS if dataset.spec.kind == "tokens" else ROWS)


def each(name: str, model: Model, dataset: Dataset) -> dict[str, Shaped[Tensor, "n ..."]]:
    """The same by what they are of: of a text at each temperature, where the model has one."""
    drawn = draw(model, dataset)
    if dataset.spec.kind != "tokens" or "temperature" not in examples.knobs_of(model):
        return {name: drawn}
    return {f"{name}, temperature {t:g}": drawn if t == 1 else examples.draw(model, TEXTS, temperature=t) for t in TEMPERATURES}


def show(drawn: Mapping[str, Shaped[Tensor, "n ..."]], dataset: Dataset) -> str:
    """HTML of samples by the name of their model below as many held-out examples; data must be `readable`."""
    part, held = examples.held_out(dataset)
    like = next(iter(drawn.values()))
    real = examples.first(held, len(like), like.shape[1] if held.tokens else None).x
    found = {f"real data ({part} part)": real, **drawn}
    return _texts(found, dataset) if dataset.spec.kind == "tokens" else _rows(found, dataset)


def _rows(found: Mapping[str, Tensor], dataset: Dataset) -> str:
    tables = {name: cells for name, x in found.items() if (cells := dataset.codec.cells(x)) is not None}
    head = next(names for names, _ in tables.values())
    return page.numbers(head, [(name, [[page.text(cell) for cell in row] for row in rows]) for name, (_, rows) in tables.items()])


def _texts(found: Mapping[str, Tensor], dataset: Dataset) -> str:
    blocks = []
    for name, x in found.items():
        texts = [printable(str(text), LINES) for text in dataset.codec.show(x)]
        shown = "".join(f'<pre class="prose">{page.text(text)}</pre>' for text in texts)
        blocks.append(f"<div><h3>{page.text(name)}</h3>{shown}</div>")
    return f'<div class="side">{"".join(blocks)}</div>'


def printable(text: str, most: int | None = None) -> str:
    """At most so many lines of a text; escapes and control characters become points, tabulators four spaces."""
    lines = text.splitlines()
    shown = lines if most is None or len(lines) <= most else [*lines[:most], "…"]
    return "\n".join("".join(c if c.isprintable() else "·" for c in line.expandtabs(4)) for line in shown)
