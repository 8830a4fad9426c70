"""What the tests of data share."""

import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from pofx import data
from pofx.core import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 8), dtype=np.uint8)
SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("POFX_CACHE", str(tmp_path_factory.mktemp("cache")))


def parts(dataset):
    return [part for part in (dataset.train, dataset.validation, dataset.test) if part is not None]


def rows(part):
    return part._rows.tolist()


def whole(dataset):
    split = data.everything(dataset)
    return split.batch(torch.arange(len(split)))


def refuse(source, options=None, **kwargs):
    """The one sentence with which a source is refused."""
    with pytest.raises(UsageError) as caught:
        data.load(source, options, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.strip()
    return message


def save_images(folder, arrays, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i}{ending}")
