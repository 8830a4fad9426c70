"""Classifier two-sample test: how often can a small network tell samples from held-out data?"""

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from pofx.core import Samples, mix
from pofx.findings import Row, share

if TYPE_CHECKING:
    from pofx.subject import Subject

needs = (Samples,)
kinds = frozenset({"images", "vectors", "sequences"})

#: Hidden units and passes of the network.
HIDDEN, PASSES = 20, 100


def classifier_two_sample_test(
    real: Float[np.ndarray, "n features"], fake: Float[np.ndarray, "m features"], *, seed: int = 0
) -> Bool[np.ndarray, " tested"]:
    """Which examples of the second half a network of 20 hidden units, trained on the first half, puts on the right side.

    Sets are cut to equal size, so the share is 1/2 in expectation for equal distributions, with variance 1 / (4 tested).
    Raises `ValueError` for sets without four rows.

    References:
        Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    n = min(len(real), len(fake))
    if n < 4:
        raise ValueError("at least four rows of each set are needed")
    random = np.random.default_rng(mix(seed, "two-sample test"))
    pool = np.concatenate((real[:n], fake[:n]))
    is_fake = np.arange(2 * n) >= n
    order = random.permutation(2 * n)
    first, second = order[:n], order[n:]
    if len(np.unique(is_fake[first])) < 2:
        raise ValueError("too few rows to be divided")
    scaler = StandardScaler().fit(pool[first])
    network = MLPClassifier(
        (HIDDEN,), max_iter=PASSES, n_iter_no_change=PASSES, batch_size=min(64, n), random_state=mix(seed, "network") % 2**31
    )
    with warnings.catch_warnings():
        # A fixed number of passes is the protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(scaler.transform(pool[first]), is_fake[first])
    return network.predict(scaler.transform(pool[second])) == is_fake[second]


def measure(subject: "Subject") -> Iterator[Row]:
    """Accuracy as an effect size; in raw values a network tells almost any samples."""
    real, fake, other, trivial = (subject.seen(which) for which in ("real", "drawn", "other", "gaussian"))
    if len(real) < 8:
        return
    accuracy, error, draws = share(classifier_two_sample_test(real, fake))
    floor = float(classifier_two_sample_test(real, other).mean())
    yield Row(
        about="samples",
        name="two-sample accuracy",
        unit="1/2 for equal distributions",
        model=accuracy,
        error=error,
        draws=draws,
        n=len(fake),
        baselines={"gaussian": float(classifier_two_sample_test(real, trivial).mean())},
        better="floor",
        floor=floor,
        features=subject.features.name,
        note=f"z = {(accuracy - 0.5) * 2 * math.sqrt(len(real)):.1f} against equal distributions",
    )
