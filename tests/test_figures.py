"""Figures draw what they say; the page of a run is whole and safe."""

import json
import re
import warnings

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from pofx import data, discovery, figures, report
from pofx.core import UsageError
from pofx.evaluate import Report
from pofx.figures import curves, manifold, reconstructions
from pofx.findings import Row


def build(name: str, source: str, **config):
    torch.manual_seed(0)
    dataset = data.load(source)
    cls = discovery.model(name)
    return cls(dataset.spec, cls.Config(**config)).eval(), dataset


class FakeRun:
    """A run that was never trained."""

    step, label = 3, "vae"

    def __init__(self, path, model, dataset, lines=()):
        self.path, self._model, self._dataset, self._lines = path, model, dataset, list(lines)
        self.info = {
            "model": "vae",
            "config": model.config.to_json(),
            "data": {"source": "<script>alert(1)</script>", "options": {}, "fingerprint": "f"},
            "training": {"seed": 0, "steps": 5},
        }

    def model(self):
        return self._model

    def dataset(self):
        return self._dataset

    def metrics(self):
        return self._lines


CODES = ("latent", "manifold", "traversal", "interpolation", "active-units")
CASES = [
    ("vae", "digits", {"hidden": (16,), "latent_dim": 2}, ("samples", "reconstructions", *CODES)),
    ("vae", "digits", {"hidden": (16,), "latent_dim": 1, "conditional": True}, ("samples", "reconstructions", *CODES)),
    ("vae", "digits", {"hidden": (16,), "latent_dim": 5}, CODES),
    ("autoencoder", "digits", {"hidden": (16,), "latent_dim": 3}, CODES),
    ("vae", "ring", {"hidden": (16,), "latent_dim": 2}, ("samples", "reconstructions", "latent", "active-units")),
    ("gpt", "python_docs", {"window": 32, "width": 32, "depth": 1, "heads": 1}, ("samples", "next-token")),
    ("rnn", "oscillator", {"width": 8, "depth": 1}, ("samples", "forecast")),
]


@pytest.mark.parametrize(("name", "source", "config", "names"), CASES)
def test_figures_are_pictures_and_seeded(tmp_path, name, source, config, names):
    model, dataset = build(name, source, **config)
    for figure in names:
        for i in range(2):
            figures.save(figures.draw(figure, model, dataset, seed=1), tmp_path / f"{i}.png")
        first, second = (np.asarray(Image.open(tmp_path / f"{i}.png").convert("L")) for i in range(2))
        assert np.array_equal(first, second)
        assert len(np.unique(first)) > 5


@pytest.mark.parametrize(("name", "source", "config", "names"), CASES)
def test_every_figure_names_its_run_within_its_edges(tmp_path, name, source, config, names):
    model, dataset = build(name, source, **config)
    run = FakeRun(tmp_path / "a$b$c", model, dataset, [{"step": i, "m/total": 1.0 / i} for i in range(1, 9)])
    for figure in (*names, "curves"):
        drawn = figures.draw(figure, model, dataset, run=run)
        # Lines break where the folder's name happens to be long.
        name = "".join(figures.named(run).split())
        (title,) = [text for text in drawn.texts if name in "".join(text.get_text().split())]
        FigureCanvasAgg(drawn).draw()
        box = title.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= drawn.bbox.width
        assert box.y1 <= drawn.bbox.height


def test_a_picture_is_no_wider_than_its_names_and_images():
    image, title = np.zeros((100, 600, 1), dtype=np.uint8), "a title of many words that is longer than the picture is wide " * 3
    short, long = (figures.picture(image, one, rows=("a", "b")) for one in ("samples", title))
    assert short.get_figwidth() == long.get_figwidth()
    assert short.get_figheight() < long.get_figheight()


def test_figures_that_fit_a_model_are_those_that_can_be_drawn():
    for name, source, able in (("vae", "digits", {"manifold", "copies"}), ("vae", "ring", set())):
        model, dataset = build(name, source, hidden=(16,), latent_dim=2)
        fit = {figure for figure in discovery.names("figures") if figures.fits(figure, model)}
        assert able <= fit
        for figure in set(discovery.names("figures")) - {"curves"}:
            if figure in fit:
                figures.draw(figure, model, dataset)
                continue
            with pytest.raises(UsageError, match=r"needs|shows"):
                figures.draw(figure, model, dataset)


def test_another_seed_draws_another_picture(tmp_path):
    model, dataset = build("vae", "digits", hidden=(16,), latent_dim=2)
    for seed in (0, 1):
        figures.save(figures.draw("samples", model, dataset, seed=seed), tmp_path / f"{seed}.png")
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


@pytest.mark.parametrize("figure", [*CODES, "reconstructions"])
def test_a_model_that_cannot_is_told_which_can(figure):
    model, dataset = build("gpt", "python_docs", window=32, width=32, depth=1, heads=1)
    with pytest.raises(UsageError, match=r"needs a model that .*, and GPT does not; these can: .*vae"):
        figures.draw(figure, model, dataset)


def test_what_cannot_be_drawn_is_one_sentence(tmp_path):
    model, dataset = build("vae", "ring", hidden=(16,))
    for name in ("manifold", "traversal", "interpolation"):
        with pytest.raises(UsageError, match=f"{name} shows images, and these data are vectors"):
            figures.draw(name, model, dataset)
    with pytest.raises(UsageError, match=r"metrics\.jsonl"):
        figures.draw("curves", model, dataset)
    with pytest.raises(UsageError, match=r"\.svg"):
        figures.save(figures.draw("samples", model, dataset), tmp_path / "x.txt")


def test_blocks_put_results_below_inputs():
    x = torch.arange(5.0).view(5, 1, 1, 1) / 10
    rows = reconstructions.blocks((x, x + 0.5), 3).view(-1, 3)
    assert torch.allclose(rows, torch.tensor([[0, 0.1, 0.2], [0.5, 0.6, 0.7], [0.3, 0.4, 0.5], [0.8, 0.9, 0.5]]))


def sheet(z, *arguments):
    """The grid of codes in the plane of others."""
    return manifold.plane(manifold.Codes(z, "some", figures.Plane(z), "a plane"), *arguments)


def test_plane_runs_right_and_up_through_the_quantiles():
    codes = np.random.default_rng(0).standard_normal((20_000, 2)) * (1.0, 3.0)
    found = sheet(codes, 5)
    z = found.z.view(5, 5, 2)
    assert (z[0, 1:, 0] > z[0, :-1, 0]).all()
    assert (z[1:, 0, 1] < z[:-1, 0, 1]).all()
    assert float(z[0, 0, 1]) == pytest.approx(3 * 2.054, rel=0.05)  # the 98th percentile
    assert np.allclose(z[0, :, 0], found.right)
    assert np.allclose(z[:, 0, 1], found.up)


def test_plane_over_a_range_ends_there_whatever_the_codes():
    z = sheet(np.random.default_rng(0).standard_normal((50, 2)) + 7, 3, 10.0).z
    assert z.view(3, 3, 2)[:, :, 0].tolist() == [[-10, 0, 10]] * 3
    assert z.view(3, 3, 2)[:, 0, 1].tolist() == [10, 0, -10]
    assert sheet(np.zeros((9, 1)), 2, 3.0).z.flatten().tolist() == [-3, -1, 1, 3]


@pytest.mark.parametrize(
    ("name", "config"), [("vae", {"hidden": (16,), "latent_dim": 1}), ("vae", {"hidden": (16,), "latent_dim": 2}), ("gan", {})]
)
def test_quantiles_of_a_symmetric_prior_are_symmetric(name, config):
    model, dataset = build(name, "digits", **config)
    codes = manifold.codes_of(model, dataset, 0)
    found = manifold.plane(codes, 16)
    z = found.z.sort(0).values
    assert torch.allclose(z, -z.flip(0), atol=1e-5)
    # A share of as many draws lies below each as it says.
    line = found.right if codes.z.shape[1] > 1 else found.z[:, 0].numpy()
    shares = np.linspace(manifold.EDGE, 1 - manifold.EDGE, len(line))
    assert np.allclose([(codes.plane(codes.z)[:, 0] < value).mean() for value in line], shares, atol=0.05)


def test_plane_of_long_codes_is_the_one_that_they_vary_in():
    codes = 5 + np.random.default_rng(0).standard_normal((500, 6)) * (0.01, 3, 0.01, 0.01, 2, 0.01)
    z = sheet(codes, 4).z
    assert z.shape == (16, 6)
    assert (z.std(0)[[1, 4]] > 1).all()
    assert (z.std(0)[[0, 2, 3, 5]] < 0.05).all()
    plane = figures.Plane(codes)
    assert np.allclose(plane(plane.back(np.array([[1.0, -2.0]]))), [[1, -2]])


def test_series_and_averages():
    lines = [{"step": 1, "examples": 5, "a/x": 1.0}, {"step": 2, "a/x": float("nan"), "b/y": 2}]
    found = curves.series(lines)
    assert found["a"]["x"][0].tolist() == [1]
    assert found["b"]["y"][1].tolist() == [2]
    line = np.arange(400.0)
    assert np.allclose(curves.averaged(line), line)
    noise = np.random.default_rng(0).standard_normal(400)
    assert curves.averaged(noise).std() < 0.5


def test_terms_of_another_order_have_a_panel_of_their_own():
    terms = {name: (np.arange(3), np.full(3, value)) for name, value in (("kl", 8.0), ("reconstruction", 2180.0), ("total", -2188.0))}
    assert [list(group) for group in curves.grouped(terms)] == [["reconstruction", "total"], ["kl"]]
    chain = {name: (np.arange(3), np.full(3, value)) for name, value in (("a", 1.0), ("b", 9.0), ("c", 80.0), ("d", 0.0))}
    assert [list(group) for group in curves.grouped(chain)] == [["a", "b", "c"], ["d"]]
    codes = {name: (np.arange(3), np.full(3, 2.0)) for name in ("active_units", "kl_least", "kl_most")}
    assert [list(group) for group in curves.grouped(codes)] == [["kl_least", "kl_most"], ["active_units"]]


def test_only_values_of_the_early_part_are_cut_and_that_is_said():
    steps = np.arange(1, 101)
    falling = np.where(steps <= 5, 1000.0 / steps, 10 + np.cos(steps))
    low, high, (first, after, outermost) = curves.limits(steps, falling)
    assert (first, after, outermost) == (1, 6, 1000)
    assert low < falling[5:].min()
    assert high > falling[5:].max()
    late = np.where(steps == 60, 1000.0, falling)
    assert curves.limits(steps, late).cut is None
    assert curves.limits(steps, late).high > 1000
    assert curves.limits(steps, np.linspace(2, 1, 100)).cut is None
    assert curves.limits(steps[:1], np.ones(1)).cut is None


def test_panels_have_titles_of_their_own_and_units_where_these_are_known(tmp_path):
    model, dataset = build("vae", "digits", hidden=(16,), latent_dim=2)
    lines = [{"step": i, "m/nll": 500.0 / i, "m/kl": 1.0, "codes/active_units": 2.0, "codes/kl_most": 1.0} for i in range(1, 9)]
    drawn = figures.draw("curves", model, dataset, run=FakeRun(tmp_path, model, dataset, [*lines, {"step": 8, "validation/score": 1.0}]))
    titles = [axes.get_title(loc="left") for axes in drawn.axes if axes.lines]
    assert len(set(titles)) == len(titles) == 5
    assert any(str(model.validation) in title for title in titles)
    labels = {axes.get_title(loc="left"): axes.get_ylabel() for axes in drawn.axes if axes.lines}
    assert labels["m: kl"] == "nats"
    assert curves.unit(["m/loss"]) == ""
    assert curves.unit(["m/loss", "m/kl"]) == ""


def test_report_is_whole_escaped_and_tells_failures(tmp_path, monkeypatch):
    model, dataset = build("vae", "digits", hidden=(16,), latent_dim=2)
    run = FakeRun(tmp_path, model, dataset, [{"step": i, "m/total": 1.0 / i} for i in range(1, 9)])

    def fails(*_, **__):
        raise RuntimeError("no <ink>")

    monkeypatch.setattr(manifold, "draw", fails)
    page = report.write(run).read_text(encoding="utf-8")
    able = [name for name in discovery.names("figures") if figures.fits(name, model)]
    assert page.count("data:image/png;base64,") == len(able) - 1
    assert "no &lt;ink&gt;" in page
    assert "<script>" not in page
    # Within the bytes of a picture any letters may stand beside each other.
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    (tmp_path / "evaluation.json").write_text(json.dumps(_evaluation().to_json() | {"draws": ""}))
    assert "7.5 trivial &lt;b&gt;" in report.write(run).read_text(encoding="utf-8")


def _evaluation():
    row = Row(about="samples", name="r", unit="u", model=3.0, error=None, baselines={"trivial <b>": 7.5}, n=2)
    return Report(model="m", data="d", part="test", fingerprint="f", step=3, rows=(row,))


def test_characters_that_no_font_has_are_told_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "_further", list)
    with figures._fonts():
        figure = figures.picture(np.zeros((40, 40, 1), np.uint8), "道可道", below="非常道")
    figures.save(figure, tmp_path / "x.png")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "no font here has them" in shown


def test_other_warnings_of_drawing_are_passed_on():
    with pytest.warns(UserWarning, match="something else"), figures.rendering():
        warnings.warn("something else", UserWarning, stacklevel=1)


def test_films_of_what_comes_about_end_there(tmp_path):
    frames = [figures.picture(np.full((40, 40, 1), 80 * i, np.uint8), "film") for i in range(3)]
    for name, shown in (("completion", 3), ("interpolation", 4)):
        figures.save_film(name, frames, tmp_path / f"{name}.gif")
        with Image.open(tmp_path / f"{name}.gif") as film:
            assert film.n_frames == shown
