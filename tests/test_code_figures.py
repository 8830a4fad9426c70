"""Figures of codes keep their laws: circles of the prior, numbers on known distributions, walks, films, knobs, colours."""

import itertools
import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from refusals import refused

from pofx import data, discovery, examples, figures
from pofx.cli import main
from pofx.core import Batch, UsageError
from pofx.figures import active_units, interpolation, latent, traversal
from pofx.metrics import codes as measures

TINY = ["--steps", "3", "--batch-size", "16", "--quiet", "--model.latent-dim", "2", "--model.hidden", "16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two small runs of one data set, and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    for model, source, name in (("vae", "digits", "a"), ("autoencoder", "digits", "b"), ("vae", "ring", "c")):
        assert main(["train", model, "--data", source, "--run", str(folder / name), *TINY]) == 0
    return folder


def normal(n, d=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def ring(n, radius=2.0):
    angle = np.random.default_rng(1).uniform(0, 2 * math.pi, n)
    return radius * np.stack((np.cos(angle), np.sin(angle)), 1)


# ------------------------------------------------------------------------------------------------ the prior's sigmas


def test_sigmas_of_a_standard_normal_are_circles():
    for k, ellipse in enumerate(latent.ellipses(np.zeros(2), np.eye(2)), 1):
        assert (ellipse.width, ellipse.height) == (2 * k, 2 * k)
        assert tuple(ellipse.center) == (0, 0)


def test_sigmas_of_any_gaussian_have_their_mahalanobis_distance():
    mean, covariance = np.array([1.0, -2.0]), np.array([[3.0, 1.2], [1.2, 0.7]])
    for k, ellipse in enumerate(latent.ellipses(mean, covariance), 1):
        edge = ellipse.get_patch_transform().transform(np.array([[math.cos(t), math.sin(t)] for t in range(7)])) - mean
        assert np.allclose(np.sqrt(np.einsum("ni,ij,nj->n", edge, np.linalg.inv(covariance), edge)), k)


@pytest.mark.parametrize(("name", "latent_dim"), [("vae", 3), ("autoencoder", 3), ("autoencoder", 300)])
def test_moments_along_axes_are_those_of_draws(name, latent_dim):
    torch.manual_seed(0)
    dataset = data.load("digits")
    cls = discovery.model(name)
    model = cls(dataset.spec, cls.Config(latent_dim=latent_dim, hidden=(16,)))
    for batch in itertools.islice(dataset.train.batches(64), 3):
        model.loss(batch)  # an autoencoder follows its codes
    axes = torch.linalg.qr(torch.randn(latent_dim, 2)).Q.T
    mean, covariance = examples.prior_moments(model, axes)
    draws = examples.prior_codes(model, 50_000, 0)
    along = draws @ axes.T
    spread = covariance.diagonal().sqrt()
    assert torch.allclose(mean, along.mean(0), atol=0.03 * float(spread.max()))
    assert torch.allclose(covariance, along.T.cov(), atol=0.03 * float(spread.max() ** 2))
    centre, scale = examples.prior_scale(model)
    assert torch.allclose(centre, draws.mean(0), atol=0.03 * float(scale.max()))
    assert torch.allclose(scale, draws.std(0), rtol=0.03, atol=1e-6)


def test_moments_without_a_closed_form_are_those_of_draws(monkeypatch):
    dataset = data.load("digits")
    cls = discovery.model("vae")
    model = cls(dataset.spec, cls.Config(latent_dim=2, hidden=(16,)))
    base, move = model.prior(), torch.distributions.AffineTransform(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0]), event_dim=1)
    monkeypatch.setattr(model, "prior", lambda: torch.distributions.TransformedDistribution(base, [move]))
    centre, scale = examples.prior_scale(model)
    assert torch.allclose(centre, torch.tensor([2.0, 0.0]), atol=0.4)
    assert torch.allclose(scale, torch.tensor([3.0, 1.0]), rtol=0.1)
    mean, covariance = examples.prior_moments(model, torch.eye(2))
    assert torch.allclose(mean, centre)
    assert torch.allclose(covariance.diagonal().sqrt(), scale, rtol=1e-3)


# ------------------------------------------------------------------------------------------------ numbers of a comparison


def test_divergence_from_a_standard_normal_has_its_closed_form():
    white = normal(500, 3)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(white.T)), (white - white.mean(0)).T).T
    assert measures.standard_normal_kl(white) == pytest.approx(0, abs=1e-9)
    scale, shift = np.array([2.0, 0.5, 1.0]), np.array([1.0, 0.0, -2.0])
    expected = 0.5 * (scale**2 + shift**2 - 1 - 2 * np.log(scale)).sum()
    assert measures.standard_normal_kl(white * scale + shift) == pytest.approx(expected)
    assert measures.standard_normal_kl(np.zeros((9, 2))) == math.inf


def test_sliced_distance_is_small_for_draws_and_grows_with_the_shift():
    assert measures.sliced_distance(normal(5000)) < 0.05
    # Shifted by c, every direction u moves by u^T c, of which the mean square is |c|^2 / d.
    assert measures.sliced_distance(normal(5000) + np.array([3.0, 4.0])) == pytest.approx(5 / math.sqrt(2), rel=0.06)
    assert measures.sliced_distance(3 * normal(5000)) == pytest.approx(2, rel=0.05)
    # The moments of N(0, I), and yet another distribution.
    circle = ring(5000, math.sqrt(2))
    assert measures.standard_normal_kl(circle) < 0.01
    assert measures.sliced_distance(circle) > 0.2


def test_a_ring_is_empty_inside_and_a_square_is_not():
    square = np.random.default_rng(0).uniform(-1, 1, (3000, 2))
    assert measures.empty_area(square) == 0
    empty = measures.empty_area(ring(3000))
    cells = measures.cells(3000)
    # All but a seam two cells wide along the edge.
    assert (1 - 6 / cells) ** 2 < empty < 1
    assert measures.empty_area(ring(3000) * (50, 0.1)) == pytest.approx(empty, abs=0.03)
    assert math.isnan(measures.empty_area(np.outer(np.arange(60.0), (1, 1))))


def test_near_is_the_own_cell_and_those_around_it():
    place = np.stack(np.meshgrid(np.arange(11.0), np.arange(11.0)), -1).reshape(-1, 2)
    assert measures.near(place, place).all()
    width = 10 / measures.cells(len(place))
    outside = np.array([[10 + 0.9 * width, 5], [10 + 1.1 * width, 5], [-0.9 * width, 5], [-1.1 * width, 5], [1e9, 5], [5, -1e9]])
    assert measures.near(place, outside).tolist() == [True, False, True, False, False, False]


def test_numbers_tell_a_normal_cloud_from_a_ring():
    prior, classes = normal(4000, seed=3), np.arange(2000) % 2
    cloud, circle = (latent.measured(codes, figures.Plane(codes), classes, prior) for codes in (normal(2000), ring(2000)))
    assert all(a < b for a, b in zip(cloud[1:5], circle[1:5], strict=True))
    assert cloud.kl < 0.01
    assert cloud.distance < 0.1
    assert cloud.missed < 0.01
    # The inside of the ring, and the outside, which the hull does not count.
    assert circle.missed > 0.7
    # Classes that have nothing to do with the codes, and halves of the ring.
    assert cloud.purity == pytest.approx(0.5, abs=0.05)
    halves = latent.measured(ring(2000), figures.Plane(ring(2000)), (ring(2000)[:, 0] > 0).astype(int))
    assert halves.purity > 0.95
    assert halves.missed is None
    # A unit that is not needed takes no part in the distances.
    idle = np.concatenate((normal(2000), 1e-3 * normal(2000, 1, seed=9)), 1)
    with_idle = latent.measured(idle, figures.Plane(idle), classes, normal(4000, 3, seed=3))
    assert (with_idle.active, with_idle.kl) == (2, pytest.approx(cloud.kl))


# ------------------------------------------------------------------------------------------------ walks and traversals


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_walks_begin_and_end_exactly_at_their_ends(path):
    torch.manual_seed(0)
    start, stop = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    # The same code, an opposite one, and the origin, through which no angle is defined.
    stop[1], stop[2], stop[3] = start[1], -start[2], 0
    walk = interpolation.walk(start, stop, 9, path)
    assert walk.shape == (4, 9, 2, 3)
    assert torch.equal(walk[:, 0], start)
    assert torch.equal(walk[:, -1], stop)
    assert torch.allclose(walk[1], start[1].expand(9, 2, 3))
    assert walk.isfinite().all()


def test_a_spherical_walk_keeps_the_norm_and_the_pace_and_a_linear_one_is_straight():
    torch.manual_seed(0)
    start, stop = (5 * torch.nn.functional.normalize(torch.randn(6, 20), dim=1) for _ in range(2))
    walk = interpolation.walk(start, stop, 11, "spherical")
    assert torch.allclose(walk.norm(dim=-1), torch.tensor(5.0), atol=1e-5)
    pace = torch.cosine_similarity(walk[:, 1:], walk[:, :-1], dim=-1).arccos()
    assert torch.allclose(pace, pace[:, :1].expand_as(pace), atol=1e-3)
    straight = interpolation.walk(start, stop, 11, "linear")
    assert torch.allclose(straight[:, 5], (start + stop) / 2, atol=1e-6)
    assert (straight[:, 5].norm(dim=-1) < 4.9).all()


def test_a_conditional_walk_is_asked_for_the_class_of_its_first_example():
    dataset = data.load("digits")
    cls = discovery.model("vae")
    model = cls(dataset.spec, cls.Config(latent_dim=2, hidden=(16,), conditional=True)).eval()
    start, stop, label, title = interpolation.ends(model, dataset, 4, 1)
    batch = examples.some(examples.held_out(dataset)[1], 8, seed=1)
    assert torch.equal(torch.cat((start, stop)), examples.encode(model, batch))
    assert torch.equal(label, batch.label[:4])
    assert "class" in title


def test_a_traversal_moves_one_unit():
    codes = torch.randn(1, 4)
    z = traversal.moved(codes, 2, torch.tensor([-3.0, 0.0, 3.0]))
    assert z[:, 2].tolist() == [-3, 0, 3]
    assert torch.equal(z[:, [0, 1, 3]], codes[:, [0, 1, 3]].expand(3, 3))
    assert traversal.moved(torch.randn(5, 4), 0, torch.tensor(1.5))[:, 0].tolist() == [1.5] * 5


def test_units_that_hear_of_x_are_active():
    torch.manual_seed(0)
    dataset = data.load("digits")
    cls = discovery.model("vae")
    model = cls(dataset.spec, cls.Config(latent_dim=3, hidden=(16,))).eval()
    last = [module for module in model.encoder.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight[1] = 0
    batch = Batch(dataset.train.batch(torch.arange(200)).x)
    variance, active = active_units.activity(model, batch)
    assert active.tolist() == [True, False, True]
    assert variance[1] == pytest.approx(0, abs=1e-8)
    assert np.allclose(variance, model.encode(batch.x).detach().double().var(0, correction=0), atol=1e-6)


# ------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(("name", "frames"), [("manifold", 20), ("traversal", 25), ("interpolation", 25)])
def test_films_go_there_and_back(runs, tmp_path, name, frames):
    path = tmp_path / "x.gif"
    assert main(["plot", str(runs / "a"), name, "--out", str(path)]) == 0
    with Image.open(path) as film:
        assert (film.format, film.n_frames, film.info["loop"]) == ("GIF", 2 * frames - 2, 0)
        pictures = []
        for i in (0, 1, frames - 1, 2 * frames - 3):
            film.seek(i)
            pictures.append(np.asarray(film.convert("L")).astype(int))
    assert np.abs(pictures[1] - pictures[3]).max() <= 8  # the second frame is the last one, too
    assert np.abs(pictures[0] - pictures[2]).max() > 8


@pytest.mark.parametrize("name", ["latent", "manifold"])
def test_runs_of_the_same_data_are_compared(runs, tmp_path, capsys, name):
    sizes = []
    for others in ([], [runs / "b"], [runs / "b", runs / "a"]):
        path = tmp_path / f"{len(others)}.png"
        assert main(["plot", str(runs / "a"), name, *(["--compare", *map(str, others)] if others else []), "--out", str(path)]) == 0
        with Image.open(path) as picture:
            sizes.append(picture.width)
    assert sizes == sorted(set(sizes))
    assert refused(capsys, "plot", runs / "c", "latent", "--compare", runs / "a") == refused(capsys, "compare", runs / "c", runs / "a")


def test_names_are_typed_with_hyphens_or_underscores(runs):
    for name in ("active-units", "active_units"):
        assert main(["plot", str(runs / "a"), name]) == 0
    assert [path.name for path in (runs / "a" / "figures").glob("active*")] == ["active-units.png"]
    assert "active-units" in discovery.names("figures")


def test_what_a_figure_lacks_is_one_sentence(runs, tmp_path, capsys):
    assert "has no --range; it has: --compare" in refused(capsys, "plot", runs / "a", "latent", "--range", 3)
    # Before any run is read.
    assert "has no --compare; it takes no options" in refused(capsys, "plot", runs / "none", "traversal", "--compare", runs / "b")
    assert "has no --compare; it has: --range" in refused(
        capsys, "plot", runs / "a", "manifold", "--compare", runs / "b", "--out", tmp_path / "x.gif"
    )
    assert "does not move" in refused(capsys, "plot", runs / "a", "latent", "--out", tmp_path / "x.gif")
    assert "above 0" in refused(capsys, "plot", runs / "a", "manifold", "--range", -1)
    assert "images" in refused(capsys, "plot", runs / "c", "interpolation", "--out", tmp_path / "x.gif")
    assert not (tmp_path / "x.gif").exists()


def test_an_unknown_figure_is_told_which_the_run_can_draw(runs, capsys):
    images, vectors = (refused(capsys, "plot", runs / name, "nosuch") for name in ("a", "c"))
    assert "manifold" in images
    assert "manifold" not in vectors
    assert "latent" in vectors
    assert "next-token" not in images
    assert "did you mean latent" in refused(capsys, "plot", runs / "c", "latnt")


def test_the_list_of_figures_says_what_each_needs_and_takes(capsys):
    assert main(["list", "figures"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "codes to data, data that are images; takes --range, --compare, --out x.gif" in lines["manifold"]
    assert "takes --prompt" in lines["next-token"]
    assert "takes no options" in lines["samples"]


def test_names_in_the_cloud_are_all_there_and_apart_or_none_is():
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4
    far = rng.standard_normal((400, 2)) + 10 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[classes]
    groups, names = [classes == i for i in range(4)], ["0", "1", "2", "3"]
    spots = latent.placed(far, groups, names)
    for i, spot in enumerate(spots):
        assert (far[groups[i]] == spot).all(1).any()
        assert np.linalg.norm(spot - far[groups[i]].mean(0)) < 1
    # Two classes with one middle, one around the other, are told apart.
    circle = np.concatenate((0.3 * normal(200), ring(200)))
    inside, outside = latent.placed(circle, [np.arange(400) < 200, np.arange(400) >= 200], ["0", "1"])
    assert np.linalg.norm(inside) < 1 < np.linalg.norm(outside)
    # All in one place.
    assert latent.placed(normal(2000), [np.arange(2000) % 4 == i for i in range(4)], names) is None
    # Side by side, with names that are longer than they lie apart.
    line = np.stack((np.arange(400.0), np.zeros(400)), 1)
    halves = [line[:, 0] < 200, line[:, 0] >= 200]
    assert latent.placed(line, halves, ["0", "1"]) is not None
    assert latent.placed(line, halves, ["a name as long as the cloud is wide, and longer " * 2] * 2) is None


def test_paths_of_the_verb_are_those_of_the_figure(runs, tmp_path):
    import pofx

    walks = {}
    for path in interpolation.PATHS:
        out = tmp_path / f"{path}.npz"
        assert main(["interpolate", str(runs / "a"), "--rows", "2", "--steps", "5", "--path", path, "--out", str(out)]) == 0
        walks[path] = np.load(out)["x"].astype(int)
    model, held = pofx.load(runs / "a"), examples.held_out(data.load("digits"))[1]
    ends = examples.encode(model, examples.first(held, 4))
    x = examples.decode(model, interpolation.walk(ends[:2], ends[2:], 5, "spherical").flatten(0, 1))
    assert walks["spherical"].shape == walks["linear"].shape
    np.testing.assert_allclose(walks["spherical"][[0, 4, 5, 9]], walks["linear"][[0, 4, 5, 9]], atol=1)
    scale = walks["spherical"].max() / float(x.max())
    np.testing.assert_allclose(walks["spherical"].reshape(len(x), -1), x.flatten(1).numpy() * scale, atol=1.5)


def test_images_only_names_the_kind():
    dataset = data.load("ring")
    cls = discovery.model("vae")
    with pytest.raises(UsageError, match="vectors"):
        figures.film("traversal", cls(dataset.spec, cls.Config(hidden=(8,))), dataset)


# ------------------------------------------------------------------------------------------------ colours

#: What people without one kind of cone see, of linear RGB (Machado, Oliveira and Fernandes, 2009).
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}
#: To the perceptual space OKLab, in which white and black are 1 apart (Ottosson, 2020).
CONES = np.array([[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]])
LAB = np.array([[0.21045426, 0.79361779, -0.00407205], [1.9779985, -2.42859221, 0.45059371], [0.02590404, 0.78277177, -0.80867577]])


def seen(colours, sight):
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt((linear @ SIGHT[sight].T).clip(0, 1) @ CONES.T) @ LAB.T


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_everybody(sight):
    def nearest(colours):
        return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen(colours, sight), 2))

    assert nearest(figures.PALETTE) > 0.07
    assert nearest((*figures.PALETTE, "white")) > 0.07
    # Of the usual ten, two are one colour to those without red cones.
    assert nearest(("#ff7f0e", "#2ca02c")) < 0.07 or sight != "protanopia"
