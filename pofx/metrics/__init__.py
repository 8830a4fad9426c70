"""Metrics: every module here is one, found by its file; it has `needs` (capabilities), `kinds` of data and `measure`.

Their arithmetic is in pure functions on arrays, which anyone can import from here and check.
"""

from pofx.metrics.codes import active_units, linear_probe, neighbour_purity
from pofx.metrics.copying import authenticity, c_t
from pofx.metrics.disentanglement import dci, factor_vae_score, mig, sap
from pofx.metrics.frechet import frechet_distance, frechet_infinity
from pofx.metrics.kernel import kernel_distance, kernel_mmd
from pofx.metrics.labels import class_coverage, missing_classes, total_variation
from pofx.metrics.modes import mode_coverage
from pofx.metrics.nearest import nearest_neighbour_accuracy
from pofx.metrics.neighbourhoods import prdc
from pofx.metrics.reconstruction import bits_per_code, psnr, ssim
from pofx.metrics.stacked import stacked_modes
from pofx.metrics.two_sample import classifier_two_sample_test

__all__ = [
    "active_units",
    "authenticity",
    "bits_per_code",
    "c_t",
    "class_coverage",
    "classifier_two_sample_test",
    "dci",
    "factor_vae_score",
    "frechet_distance",
    "frechet_infinity",
    "kernel_distance",
    "kernel_mmd",
    "linear_probe",
    "mig",
    "missing_classes",
    "mode_coverage",
    "nearest_neighbour_accuracy",
    "neighbour_purity",
    "prdc",
    "psnr",
    "sap",
    "ssim",
    "stacked_modes",
    "total_variation",
]
