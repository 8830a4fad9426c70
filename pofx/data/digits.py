"""The digits of scikit-learn: 1,797 grey images of 8x8, which need no download.

References:
    Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), https://archive.ics.uci.edu/dataset/80
"""

import pathlib

import numpy as np

from pofx.data import arrays
from pofx.data.dataset import Dataset
from pofx.data.labels import from_array
from pofx.data.options import Request

NAMES = {"digits": "1,797 handwritten digits, 8x8 grey; embedded, 10 classes"}


def matches(path: pathlib.Path) -> bool:
    """No file is read here."""
    return False


def load(request: Request) -> Dataset:
    """The digits, their 17 grey levels stretched to 0..255."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.images * (255 / 16)).round().astype(np.uint8)
    return arrays.build(request, x, from_array(found.target))
