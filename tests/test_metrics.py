"""Metrics against reference implementations, closed forms and brute force; intervals against repeated draws."""

import math

import numpy as np
import pytest
import torch

from pofx import intervals, metrics
from pofx.findings import Draws, mean, share
from pofx.metrics import copying, kernel, nearest
from pofx.metrics.bins import bins
from pofx.metrics.neighbourhoods import prdc
from pofx.metrics.reconstruction import bits_per_code, ssim
from pofx.metrics.sharpness import detail


def sets(n=300, m=250, d=16, seed=0, shift=0.3):
    """Two sets of features from neighbouring distributions, neither of them a Gaussian."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d)) / math.sqrt(d)
    real, fake = (random.standard_normal((k, d)) @ mixing + random.standard_exponential((k, d)) for k in (n, m))
    return real, fake + shift


# ------------------------------------------------------------------------------------------------- references


class Identity(torch.nn.Module):
    """Features that are already features."""

    def __init__(self, features):
        super().__init__()
        self.num_features = features

    def forward(self, x):
        return x


def test_frechet_distance_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid", reason="the extra `dev` brings torchmetrics")
    real, fake = sets()
    theirs = fid.FrechetInceptionDistance(feature=Identity(real.shape[1]))
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(fake), real=False)
    # They add up sums in float64 and take eigenvalues of the product of the covariances.
    assert metrics.frechet_distance(real, fake) == pytest.approx(float(theirs.compute()), rel=1e-6)


@pytest.mark.parametrize("n", [60, 200])
def test_kernel_distance_agrees_with_torchmetrics_on_equal_subsets(n):
    kid = pytest.importorskip("torchmetrics.image.kid", reason="the extra `dev` brings torchmetrics")
    real, fake = sets(n, n)
    # Subsets as large as the sets: both average over the same ones.
    theirs = kid.KernelInceptionDistance(feature=Identity(real.shape[1]), subsets=3, subset_size=n)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(fake), real=False)
    ours = metrics.kernel_distance(real, fake, subsets=3, size=n)
    assert ours.value == pytest.approx(float(theirs.compute()[0]), abs=1e-9)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_density_coverage_equal_the_authors(k, seed):
    reference = pytest.importorskip("prdc", reason="the extra `dev` brings prdc")
    real, fake = sets(seed=seed)
    # All but copies: exact ones lie on the very border of a ball, where rounding decides.
    fake[:20] = real[:20] + 1e-6 * np.random.default_rng(1).standard_normal((20, real.shape[1]))
    theirs = reference.compute_prdc(real, fake, nearest_k=k)
    assert prdc(real, fake, k) == pytest.approx(theirs, rel=1e-12)


def test_unbiased_kernel_distance_by_hand():
    real, fake = sets(7, 5, d=3)

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    within = [np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]) for x in (real, fake)]
    between = np.mean([k(a, b) for a in real for b in fake])
    assert kernel._mmd(kernel.cubic, real, fake) == pytest.approx(sum(within) - 2 * between)


def test_kernel_distance_averages_over_subsets_and_is_seeded():
    real, fake = sets(120, 90)
    whole = metrics.kernel_distance(real, fake, subsets=1, size=90)
    many = metrics.kernel_distance(real, fake, subsets=200, size=30)
    assert many.value == pytest.approx(whole.value, abs=4 * many.error + 1e-3)
    assert many == metrics.kernel_distance(real, fake, subsets=200, size=30)
    assert many != metrics.kernel_distance(real, fake, subsets=200, size=30, seed=1)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_error_of_a_kernel_distance_is_that_of_other_data(shift):
    """Also where a subset is the whole set, and all subsets are equal."""
    random = np.random.default_rng(3)

    def drawn():
        real, fake = random.standard_normal((2, 100, 4))
        return metrics.kernel_distance(real, fake + shift, subsets=1, size=100)

    found = [drawn() for _ in range(60)]
    truth = np.std([one.value for one in found])
    assert 0.7 * truth < np.mean([one.error for one in found]) < 1.4 * truth


def test_frechet_distance_of_two_gaussians_in_closed_form():
    random = np.random.default_rng(0)
    x = random.standard_normal((4000, 3))
    # Whitened, so that the sample's own moments are exactly 0 and I.
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    y = x * [1, 2, 3] + [1, 0, 0]
    assert metrics.frechet_distance(x, y) == pytest.approx(1 + 0 + 1 + 4)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_fewer_rows_than_features():
    random = np.random.default_rng(1)
    x = random.standard_normal((5, 40))
    assert metrics.frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-8)
    assert metrics.frechet_distance(x, x + 2) == pytest.approx(160)


def test_kernel_mmd_is_unbiased_and_sees_shape_beyond_two_moments():
    random = np.random.default_rng(2)
    same = [metrics.kernel_mmd(random.standard_normal((80, 2)), random.standard_normal((80, 2))) for _ in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(len(same))
    coins = random.choice([-1.0, 1.0], (80, 2))
    assert metrics.kernel_mmd(random.standard_normal((80, 2)), coins) > max(same)


def test_spread_finds_the_values_that_the_functions_find(monkeypatch):
    real, fake = sets(90, 90)
    other, _ = sets(90, 10, seed=5)
    monkeypatch.setattr(kernel, "BLOCK", 50)  # several blocks
    value, _, _, _, trivial = kernel.spread(kernel.gaussians(real), real, fake, other, other[:40])
    assert value == pytest.approx(metrics.kernel_mmd(real, fake))
    assert trivial == pytest.approx(metrics.kernel_mmd(real, other[:40]))


# ------------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("elements", [1, 1000, 1 << 23])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_neighbours_are_those_of_brute_force_in_blocks_too(monkeypatch, elements, k):
    monkeypatch.setattr(nearest, "ELEMENTS", elements)
    x, y = sets(40, 30)
    distance, row = nearest.neighbours(x, y, k)
    brute = np.linalg.norm(x[:, None] - y[None], axis=-1)
    np.testing.assert_allclose(distance, np.sort(brute, 1)[:, :k], atol=1e-9)
    np.testing.assert_array_equal(row, np.argsort(brute, 1)[:, :k])
    own, _ = nearest.neighbours(x, x, k, skip_self=True)
    brute = np.linalg.norm(x[:, None] - x[None], axis=-1) + np.diag(np.full(len(x), np.inf))
    np.testing.assert_allclose(own, np.sort(brute, 1)[:, :k], atol=1e-6)
    with pytest.raises(ValueError, match="neighbours are asked for"):
        nearest.neighbours(x, x, len(x), skip_self=True)


def test_expected_coverage_of_equal_distributions():
    random = np.random.default_rng(0)
    for k in (3, 5):
        found = prdc(random.standard_normal((1500, 8)), random.standard_normal((1500, 8)), k)
        assert found["coverage"] == pytest.approx(1 - 2.0**-k, abs=0.02)
        assert found["density"] == pytest.approx(1, abs=0.1)


def test_coverage_recall_and_precision_see_what_is_missing_and_what_is_wrong():
    random = np.random.default_rng(0)
    real = np.concatenate((random.standard_normal((500, 4)), random.standard_normal((500, 4)) + 20))
    half = prdc(real, random.standard_normal((1000, 4)))
    assert half["coverage"] == pytest.approx(0.5, abs=0.03)
    assert half["recall"] == pytest.approx(0.5, abs=0.05)
    assert half["precision"] > 0.9
    assert prdc(real, random.standard_normal((1000, 4)) - 20)["precision"] == 0


def test_nearest_neighbour_accuracy_of_equal_apart_and_copied_sets():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 800, 5))
    assert metrics.nearest_neighbour_accuracy(x, y) == pytest.approx(0.5, abs=0.05)
    assert metrics.nearest_neighbour_accuracy(x, y + 50) == 1
    assert metrics.nearest_neighbour_accuracy(x, x + 1e-6) == 0


def test_two_sample_test_of_equal_and_apart_sets():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 600, 4))
    hits = metrics.classifier_two_sample_test(x, y)
    assert len(hits) == 600
    assert abs(hits.mean() - 0.5) < 4 / math.sqrt(4 * 600)
    assert metrics.classifier_two_sample_test(x, y + 3).mean() > 0.95
    np.testing.assert_array_equal(hits, metrics.classifier_two_sample_test(x, y))


# ------------------------------------------------------------------------------------------------ memorisation


def test_c_t_falls_with_the_share_of_copies_and_rises_off_the_data():
    random = np.random.default_rng(0)
    train, held, fresh = random.standard_normal((3, 1500, 6))
    scores = []
    for copied in (0.0, 0.2, 1.0):
        fake = fresh.copy()
        count = int(copied * len(fake))
        fake[:count] = train[:count] + 1e-3
        scores.append(metrics.c_t(train, held, fake))
    assert abs(scores[0]) < 3
    assert scores[0] > scores[1] + 5 > scores[2] + 10
    assert metrics.c_t(train, held, fresh * 2) > 5


def test_c_t_of_one_cell_is_the_mann_whitney_test_of_scipy():
    from scipy.stats import mannwhitneyu

    random = np.random.default_rng(0)
    train, held, fake = random.standard_normal((3, 200, 3))
    distance = [nearest.neighbours(rows, train)[0][:, 0] for rows in (held, fake)]
    u = mannwhitneyu(distance[1], distance[0]).statistic
    expected = (u - 200 * 200 / 2) / math.sqrt(200 * 200 * 401 / 12)
    assert metrics.c_t(train, held, fake, cells=1) == pytest.approx(expected)


def test_authenticity_by_brute_force_and_of_copies():
    random = np.random.default_rng(0)
    train, fake = random.standard_normal((80, 3)), random.standard_normal((60, 3))
    own = np.linalg.norm(train[:, None] - train[None], axis=-1) + np.diag(np.full(80, np.inf))
    to_train = np.linalg.norm(fake[:, None] - train[None], axis=-1)
    expected = np.mean([row.min() > own[row.argmin()].min() for row in to_train])
    assert metrics.authenticity(train, fake) == pytest.approx(expected)
    assert metrics.authenticity(train, train + 1e-9) == 0


def test_copies_are_told_from_samples_that_are_near_to_everything():
    random = np.random.default_rng(0)
    train, held = random.standard_normal((2, 2000, 20))
    held_pairs = nearest.neighbours(held, train, 2)[0]
    smooth = 0.5 * random.standard_normal((1000, 20))  # nearer to the training examples than held-out ones
    pairs = nearest.neighbours(smooth, train, 2)[0]
    assert pairs[:, 0].mean() < held_pairs[:, 0].mean()
    assert copying.copies(held_pairs, pairs).fake.mean() < 0.03
    assert copying.copies(held_pairs, nearest.neighbours(train[:1000] + 1e-3, train, 2)[0]).fake.mean() == 1
    assert copying.copies(held_pairs, held_pairs).held.mean() == pytest.approx(0.01, abs=0.005)


def test_repeated_samples_are_counted():
    random = np.random.default_rng(0)
    real, fake = random.standard_normal((2, 500, 5))
    assert copying.repeated(real, fake).mean() < 0.02
    fake[100:200] = fake[:100] + 1e-4
    assert copying.repeated(real, fake).mean() == pytest.approx(0.4, abs=0.02)


def test_bins_by_hand():
    real, fake = np.repeat([0, 1, 2], [50, 30, 20]), np.repeat([0, 1], [99, 1])
    found = bins(real, fake, 3)
    assert found.missing == pytest.approx(0.3 + 0.2)  # one of cell 1, where 30 were due, is under a tenth
    assert found.different == 1
    assert bins(real, real, 3) == (0, 0)


# ---------------------------------------------------------------------------------------------- reconstructions


def test_ssim_agrees_with_torchmetrics():
    reference = pytest.importorskip("torchmetrics.functional.image", reason="the extra `dev` brings torchmetrics")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 32, 28, generator=generator, dtype=torch.float64)
    y = (x + 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    _, everywhere = reference.structural_similarity_index_measure(y, x, data_range=1.0, reduction="none", return_full_image=True)
    # Ours leaves out the border, where the window would leave the image; theirs mirrors the image there.
    torch.testing.assert_close(ssim(x, y), everywhere[:, :, 5:-5, 5:-5].flatten(1).mean(1), atol=1e-9, rtol=0)
    assert torch.equal(ssim(x, x), torch.ones(4, dtype=torch.float64))
    assert bool((ssim(x[:, :, :4, :4], y[:, :, :4, :4]) < 1).all())


def test_bits_of_codes_grow_with_dimensions_and_precision():
    codes = np.random.default_rng(0).standard_normal((20_000, 2))
    one, two = bits_per_code(codes[:, :1]), bits_per_code(codes)
    assert two == pytest.approx(2 * one, rel=0.02)
    # The entropy of a Gaussian less that of a step.
    assert one == pytest.approx(0.5 * math.log2(2 * math.pi * math.e) - math.log2(0.5), abs=0.02)
    assert bits_per_code(codes, step=0.25) == pytest.approx(two + 2, abs=0.05)
    assert bits_per_code(np.repeat(codes[:1], 50, 0)) == 0


def test_detail_orders_blur_images_and_noise():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, 1, 16, 16, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    assert detail(noise).mean() > 5 * detail(smooth).mean()
    assert detail(torch.full((1, 3, 8, 8), 0.5)) == pytest.approx(0)


# ------------------------------------------------------------------------------------------------- uncertainty

TRIALS, EXPECTED_FROM, ROWS = 200, 1000, 100
TRAIN = sets(600, 10, d=24, seed=12345)[0]


def _frechet(real, fake, other):
    return metrics.frechet_distance(real, fake), intervals.distance(metrics.frechet_distance, real, fake, other).error


def _kernel(of):
    def found(real, fake, other):
        value, _, error, _, _ = kernel.spread(of(real), real, fake, other, other[:2])
        return value, error

    return found


def _halved(measure):
    def found(real, fake, other):
        subsets = [measure(real[i], fake[j]) for i, j in intervals.halves(len(real), len(fake), intervals.FEW_ROUNDS)]
        return measure(real, fake), Draws("subsets", np.array(subsets)).error()

    return found


def _authenticity(real, fake, other):
    distance, row = nearest.neighbours(fake, TRAIN)
    return share(copying._authentic(distance[:, 0], row[:, 0], TRAIN))[:2]


def _distance(real, fake, other):
    return mean(nearest.neighbours(fake, TRAIN)[0][:, 0])[:2]


UNCERTAIN = {
    "frechet": _frechet,
    "kid": _kernel(lambda real: kernel.cubic),
    "precision": _halved(lambda real, fake: prdc(real, fake)["precision"]),
    "recall": _halved(lambda real, fake: prdc(real, fake)["recall"]),
    "density": _halved(lambda real, fake: prdc(real, fake)["density"]),
    "coverage": _halved(lambda real, fake: prdc(real, fake)["coverage"]),
    "nearest": lambda real, fake, other: nearest.accuracy(real, fake),
    "authenticity": _authenticity,
    "distance": _distance,
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_intervals_cover_what_is_to_be_expected(name):
    """Equal distributions: a 95 % interval covers the estimator's expectation at that n in 90 to 99 % of 200 trials."""
    measure = UNCERTAIN[name]

    def draw(i):
        real, fake = sets(ROWS, ROWS, d=24, seed=i, shift=0)
        return real, fake, sets(ROWS, 2, d=24, seed=10_000 + i, shift=0)[0]

    # Without the resampling that only the intervals need.
    plain = {"frechet": metrics.frechet_distance, "kid": lambda r, f: kernel._mmd(kernel.cubic, r, f)}
    plain |= {key: lambda r, f: prdc(r, f)[name] for key in ("precision", "recall", "density", "coverage")}
    expected = []
    for i in range(EXPECTED_FROM):
        real, fake, other = draw(50_000 + i)
        expected.append(plain[name](real, fake) if name in plain else measure(real, fake, other)[0])
    truth = float(np.mean(expected))
    found = [measure(*draw(i)) for i in range(TRIALS)]
    covered = np.mean([abs(value - truth) <= 1.96 * error for value, error in found])
    print(f"{name}: covered {covered:.1%}")
    assert 0.90 <= covered <= 0.99


def test_the_extrapolated_frechet_distance_loses_most_of_its_bias():
    """Samples of a shifted Gaussian: the shift alone is the distance of endless ones to enough real data."""
    real, shift = np.random.default_rng(100).standard_normal((20_000, 8)), np.eye(8)[0] * 0.5
    found = []
    for seed in range(30):
        fake = np.random.default_rng(seed).standard_normal((400, 8)) + shift
        found.append((metrics.frechet_distance(real, fake), metrics.frechet_infinity(real, fake, seed=seed)))
    plain, endless = np.mean(found, 0) - 0.25
    assert plain > 0.02
    assert abs(endless) < 0.5 * plain
    with pytest.raises(ValueError, match="at least"):
        metrics.frechet_infinity(real, fake[:3])
