"""The variants of the autoencoder: sparse, contractive and denoising codes, and what is done with a denoiser."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from test_autoencoding import TABLE, build, descend, examples, images, vectors

import pofx
from pofx import core, data, discovery, figures, losses, metrics
from pofx.cli import main
from pofx.core import Batch, CodePrior, Denoises, Noise, UsageError
from pofx.models.autoencoding.autoencoder import Autoencoder
from pofx.nn.corruption import corrupt
from pofx.settings import Settings
from pofx.subject import Subject
from pofx.trainer import Trainer

VARIANTS = {
    "l1": {"sparsity": "l1", "code_activation": "relu"},
    "kl": {"sparsity": "kl"},
    "kl-relu": {"sparsity": "kl", "code_activation": "relu"},
    "top-k": {"sparsity": "top_k", "k": 2},
    "gaussian": {"noise": "gaussian"},
    "masking": {"noise": "masking"},
    "contractive": {"contractive": 0.1},
    "estimated": {"contractive": 0.1, "projections": 2, "activation": "tanh", "code_activation": "tanh"},
    "all": {"sparsity": "top_k", "k": 2, "noise": "masking", "contractive": 0.1, "code_activation": "sigmoid"},
}


def autoencoder(spec=None, **fields):
    return build(Autoencoder, spec or vectors(6), **{"hidden": (16,), "latent_dim": 4, "dropout": 0.0, **fields})


@pytest.fixture(scope="module")
def plane():
    """Points of 6 numbers that lie near a plane."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, 2, generator=generator) @ torch.randn(2, 6, generator=generator)


# ------------------------------------------------------------------------------------------------------ every variant


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spec", [images((1, 8, 8)), vectors(6), TABLE, core.DataSpec("sequences", (5, 2), size=100)], ids=lambda s: s.kind)
def test_variants_fit_every_kind_of_data(variant, spec):
    for precision in (torch.float32, torch.bfloat16):
        with core.precision(precision):
            model, x = autoencoder(spec, **VARIANTS[variant]).train(), examples(spec)
            kept = x.clone()
            loss = model.loss(Batch(x))
            loss.total.backward()
            assert torch.equal(x, kept)
            assert not x.requires_grad
            assert all(term.isfinite() and term.dtype == torch.float32 for term in loss.terms.values())
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
            with torch.no_grad():
                score = model.eval().validate(Batch(x))
                assert not score.requires_grad
                drawn = model.sample(3, noise=Noise(0, 3))
            assert drawn.shape == x[:3].shape


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_lower_their_total(variant, plane):
    def total(model):
        torch.manual_seed(0)
        return model.loss(Batch(plane)).total.item()

    model = autoencoder(**VARIANTS[variant])
    before = total(model.eval())
    assert total(descend(model, plane, 30)) < before


@pytest.mark.parametrize("latent_dim", [None, 8])
@pytest.mark.parametrize("noise", ["masking", "salt_and_pepper"])
def test_convolutions_take_every_variant(latent_dim, noise):
    model = autoencoder(
        images((1, 9, 6)), architecture="conv", latent_dim=latent_dim, channels=8, noise=noise, contractive=0.1, sparsity="l1"
    )
    x = examples(images((1, 9, 6)))
    model.train().loss(Batch(x)).total.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval().denoise(x).shape == x.shape


def test_activations_are_used():
    for fields in ({}, {"architecture": "conv"}, {"architecture": "conv", "latent_dim": None, "channels": 4}):
        for activation, kind in (("tanh", torch.nn.Tanh), ("leaky_relu", torch.nn.LeakyReLU)):
            model = autoencoder(images(), activation=activation, **fields)
            for network in (model.encoder, model.decoder):
                found = [m for m in network.modules() if type(m).__module__.endswith("activation")]
                assert found
                assert {type(m) for m in found} == {kind}


@pytest.mark.parametrize(
    ("activation", "low", "high"), [("relu", 0, math.inf), ("sigmoid", 0, 1), ("tanh", -1, 1), ("linear", -math.inf, math.inf)]
)
def test_codes_and_drawn_codes_lie_where_the_activation_puts_them(activation, low, high, plane):
    model = descend(autoencoder(code_activation=activation), plane, 20)
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.sample(200, noise=Noise(0, 200))
    for z in (model.encode(10 * plane), seen[0]):
        assert z.min() >= low
        assert z.max() <= high
    assert (low == 0) == bool((seen[0] >= 0).all())


def test_the_spatial_code_is_rectified():
    model = autoencoder(images((1, 8, 8)), architecture="conv", latent_dim=None, channels=4)
    assert model.encode(torch.rand(5, 1, 8, 8)).min() == 0
    linear = autoencoder(images((1, 8, 8)), architecture="conv", latent_dim=None, channels=4, code_activation="linear")
    assert linear.encode(torch.rand(5, 1, 8, 8)).min() < 0


def test_a_fitted_prior_takes_the_place_of_the_gaussian():
    class Point(CodePrior):
        def draw(self, noise, *, temperature=1.0):
            return torch.full((noise.n, 4), temperature)

    model = autoencoder().eval()
    model.fitted = Point()
    with torch.no_grad():
        assert torch.equal(model.sample(2, noise=Noise(0, 2), temperature=3.0), model.decode(torch.full((2, 4), 3.0)))


def test_a_dead_code_is_told():
    model, x = autoencoder(code_activation="relu").eval(), examples(vectors(6), 50)
    with torch.no_grad():
        assert model.symptoms(Batch(x)) == {}
        model.encoder.layers[-1].bias.fill_(-100)
        assert list(model.symptoms(Batch(x))) == ["dead code"]


# ------------------------------------------------------------------------------------------------------------- sparse


def hoyer(z):
    """Sparsity of codes, whatever their scale: 0 for equal numbers, 1 where one alone is not 0."""
    root = math.sqrt(z.shape[1])
    return ((root - z.abs().sum(1) / z.norm(dim=1).clamp(min=1e-9)) / (root - 1)).mean().item()


def test_a_sparse_code_is_sparser(plane):
    fields = {"latent_dim": 16, "code_activation": "relu"}
    plain = descend(autoencoder(**fields), plane, 300)
    sparse = descend(autoencoder(sparsity="l1", sparsity_weight=0.3, **fields), plane, 300)
    with torch.no_grad():
        assert hoyer(sparse.encode(plane)) > hoyer(plain.encode(plane)) + 0.1
        # And it still tells examples apart.
        assert (sparse.decode(sparse.encode(plane)) - plane).square().mean() < 0.5 * plane.var(0).mean()


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_mean_activities_go_to_their_target(activation, plane):
    for target in (0.1, 0.3):
        model = descend(
            autoencoder(sparsity="kl", sparsity_target=target, sparsity_weight=20, code_activation=activation), plane, 200, lr=2e-2
        )
        with torch.no_grad():
            assert model.encode(plane).mean(0).sub(target).abs().max() < 0.05


def test_divergences_of_activities_are_those_of_the_distributions():
    from torch.distributions import Bernoulli, Exponential, kl_divergence

    activity, target = torch.tensor([0.05, 0.4, 0.9]), 0.2
    expected = kl_divergence(Bernoulli(torch.tensor(target)), Bernoulli(activity)).sum()
    torch.testing.assert_close(losses.bernoulli_activity_kl(activity, target), expected)
    expected = kl_divergence(Exponential(1 / activity), Exponential(torch.tensor(1 / target))).sum()
    torch.testing.assert_close(losses.exponential_activity_kl(activity, target), expected)
    for divergence in (losses.bernoulli_activity_kl, losses.exponential_activity_kl):
        assert divergence(torch.zeros(3), target).isfinite()
        assert divergence(torch.full((3,), target), target).item() == pytest.approx(0, abs=1e-6)


def test_top_k_keeps_the_k_largest():
    model, whole = autoencoder(sparsity="top_k", k=3, latent_dim=10), autoencoder(latent_dim=10)
    x = examples(vectors(6), 50)
    z, full = model.encode(x), whole.encode(x)
    assert ((z != 0).sum(1) <= 3).all()
    for kept, row in zip(z, full, strict=True):
        assert torch.equal(kept, row * (row >= row.sort(descending=True).values[2]))


# -------------------------------------------------------------------------------------------------------- contractive


@pytest.mark.parametrize("fields", [{}, {"code_activation": "sigmoid"}, {"sparsity": "top_k", "k": 2}])
def test_the_contractive_penalty_is_the_norm_of_the_jacobian(fields):
    model, x = autoencoder(contractive=1.0, **fields), examples(vectors(6), 5)
    jacobians = [torch.autograd.functional.jacobian(lambda row: model.encode(row[None])[0], row) for row in x]
    expected = torch.stack([jacobian.square().sum() for jacobian in jacobians]).mean()
    torch.testing.assert_close(model.loss(Batch(x)).terms["contraction"], expected)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().loss(Batch(x)).terms["contraction"], expected)


def test_random_projections_estimate_the_norm():
    model, x = autoencoder(contractive=1.0), examples(vectors(6), 5)
    exact = model.loss(Batch(x)).terms["contraction"].item()
    rough = autoencoder(contractive=1.0, projections=1)
    torch.manual_seed(0)
    estimates = torch.stack([rough.loss(Batch(x)).terms["contraction"].detach() for _ in range(800)])
    assert estimates.std() > 0
    assert estimates.mean().item() == pytest.approx(exact, abs=4 * estimates.std().item() / math.sqrt(800))


def test_its_gradient_is_that_of_the_norm():
    """Of a linear encoder the norm is that of its weights, and its gradient 2 W."""
    model = autoencoder(hidden=(), contractive=0.7)
    loss = model.loss(Batch(examples(vectors(6))))
    weight = model.encoder.layers[0].weight
    (gradient,) = torch.autograd.grad(loss.weights["contraction"] * loss.terms["contraction"], weight)
    torch.testing.assert_close(gradient, 0.7 * 2 * weight.detach())


def test_contraction_makes_codes_less_sensitive(plane):
    def sensitivity(weight):
        model, x = descend(autoencoder(contractive=weight, code_activation="sigmoid"), plane, 150), plane.clone().requires_grad_()
        return losses.jacobian_norm(model.encode(x), x).item()

    assert sensitivity(10.0) < 0.5 * sensitivity(0.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trainer_trains_it(precision):
    dataset = data.load("digits")
    model = autoencoder(dataset.spec, contractive=0.1, noise="salt_and_pepper", noise_strength=0.2, sparsity="l1", sparsity_weight=0.01)
    trainer = Trainer(model, dataset, Settings(steps=40, batch_size=32, ema=0.9, accumulate=2, precision=precision))
    before = model.encoder.layers[0].weight.clone()
    assert trainer.train() == "finished"
    assert math.isfinite(trainer.clock.best)
    assert not torch.equal(before, model.encoder.layers[0].weight)


# ---------------------------------------------------------------------------------------------------------- denoising


def test_corruption_has_the_strength_asked_for():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 300, 300, generator=generator) * 0.5 + 0.25
    uniform, normal = torch.rand(x.shape, generator=generator), torch.randn(x.shape, generator=generator)
    for share in (0.0, 0.2, 1.0):
        masked = corrupt(x, uniform, "masking", share, images=True)
        assert (masked == 0).float().mean().item() == pytest.approx(share, abs=0.01)
        assert torch.equal(masked[masked != 0], x[masked != 0])
        salted = corrupt(x, uniform, "salt_and_pepper", share, images=True)
        for value in (0, 1):
            assert (salted == value).float().mean().item() == pytest.approx(share / 2, abs=0.01)
        untouched = (salted != 0) & (salted != 1)
        assert torch.equal(salted[untouched], x[untouched])
    free = corrupt(x, normal, "gaussian", 0.3, images=False) - x
    assert free.std().item() == pytest.approx(0.3, rel=0.02)
    assert free.mean().item() == pytest.approx(0, abs=0.01)
    bounded = corrupt(x, normal, "gaussian", 2.0, images=True)
    assert (bounded.min(), bounded.max()) == (0, 1)


def test_denoises_is_declared_only_by_those_that_do():
    assert Denoises not in autoencoder().capabilities
    assert Denoises in autoencoder(noise="masking").capabilities


def test_the_loss_is_measured_by_the_clean_example():
    """All is masked, so that whatever the input is, the output is the same; the error is that against the clean input."""
    model, x = autoencoder(noise="masking", noise_strength=1.0), examples(vectors(6), 5)
    with torch.no_grad():
        constant = model.decode(model.encode(torch.zeros(1, 6)))
        expected = 0.5 * (constant - x).square().sum(1).mean()
        torch.testing.assert_close(model.loss(Batch(x)).terms["reconstruction"], expected)


def test_noise_of_training_is_drawn_anew_and_seeded():
    model, batch = autoencoder(noise="gaussian"), Batch(examples(vectors(6)))
    torch.manual_seed(0)
    first, second = (model.loss(batch).total.item() for _ in range(2))
    torch.manual_seed(0)
    assert model.loss(batch).total.item() == first != second
    x = batch.x
    together = model.corrupt(x, noise=Noise(3, 6))
    parts = torch.cat([model.corrupt(x[:2], noise=Noise(3, 2)), model.corrupt(x[2:], noise=Noise(3, 4, first=2))])
    assert torch.equal(together, parts)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("denoiser")
    small = {"steps": 400, "quiet": True, "report": False, "hidden": (128,), "optimizer": {"lr": 5e-3}}
    pofx.train("autoencoder", "digits", run=folder / "run", noise="masking", noise_strength=0.3, **small)
    return folder / "run"


def test_what_is_restored_is_better_than_what_was_given(denoiser):
    model, x = pofx.load(denoiser), data.load("digits").test.batch(torch.arange(150)).x
    noisy = model.corrupt(x, noise=Noise(0, len(x)))
    restored = model.denoise(noisy)
    assert (restored - x).square().mean() < 0.5 * (noisy - x).square().mean()
    assert metrics.ssim(restored, x).mean() > metrics.ssim(noisy, x).mean() + 0.1
    dataset = data.load("digits")
    rows = list(discovery.load("metrics", "denoising").measure(Subject(model, dataset, dataset, dataset.test, "test")))
    assert len(rows) == 3
    for row in rows:
        noise = row.baselines["noisy example"]
        assert row.model < noise if row.better == "lower" else row.model > noise


def test_psnr_is_that_of_the_definition():
    x, y = torch.zeros(2, 1, 4, 4), torch.stack([torch.full((1, 4, 4), 0.1), torch.zeros(1, 4, 4)])
    assert metrics.psnr(x, y).tolist() == pytest.approx([20.0, 80.0], abs=1e-4)


def test_the_verb_cleans_a_folder_and_shows_its_own_noise(denoiser, tmp_path, capsys):
    model, found = pofx.load(denoiser), pofx.Run.open(denoiser)
    x = data.load("digits").test.batch(torch.arange(12)).x
    noisy = model.corrupt(x, noise=Noise(1, len(x)))
    found.codec.write(noisy, tmp_path / "noisy")
    assert main(["denoise", str(denoiser), "--data", str(tmp_path / "noisy"), "--out", f"{tmp_path / 'cleaned'}/"]) == 0
    files = sorted((tmp_path / "cleaned").glob("*.png"))
    assert [file.name for file in files] == sorted(file.name for file in (tmp_path / "noisy").glob("*.png"))
    cleaned = np.stack([np.asarray(Image.open(file)) for file in files])[:, None] / 255
    np.testing.assert_allclose(cleaned, model.denoise((noisy * 255).round() / 255), atol=0.01)
    (tmp_path / "noisy" / "broken.png").write_bytes(b"no picture")
    assert "broken.png" in refused(capsys, "denoise", denoiser, "--data", tmp_path / "noisy", "--out", tmp_path / "x")
    skip = ["--data.on-error", "skip", "--out", f"{tmp_path / 'again'}/"]
    assert main(["denoise", str(denoiser), "--data", str(tmp_path / "noisy"), *skip]) == 0
    assert len(list((tmp_path / "again").glob("*.png"))) == 12
    shown = {}
    for seed in (0, 0, 1):
        assert main(["denoise", str(denoiser), "--n", "6", "--seed", str(seed), "--out", str(tmp_path / "x.png")]) == 0
        with Image.open(tmp_path / "x.png") as picture:
            pixels = np.asarray(picture)
        assert np.array_equal(shown.setdefault(seed, pixels), pixels)
    assert not np.array_equal(shown[0], shown[1])
    # Six examples in rows of four: clean, noisy, restored, twice.
    assert shown[0].shape == (6 * 65 - 1, 4 * 65 - 1)
    capsys.readouterr()
    assert "--n" in refused(capsys, "denoise", denoiser, "--n", 0)


def test_the_figure_shows_three_rows(denoiser, tmp_path):
    model, dataset = pofx.load(denoiser), data.load("digits")
    figure = figures.draw("denoising", model, dataset)
    figures.save(figure, tmp_path / "x.png")
    names = [text.get_text().splitlines()[0] for axes in figure.axes for text in axes.texts]
    assert names == ["clean", "noisy", "restored"]
    assert figure.axes[0].images[0].get_array().shape[:2] == (3 * 65 - 1, 10 * 65 - 1)


def test_others_are_told_who_denoises(capsys, tmp_path):
    pofx.train("autoencoder", "ring", run=tmp_path / "plain", steps=2, quiet=True, report=False)
    assert "--model.noise gaussian" in refused(capsys, "denoise", tmp_path / "plain")
    pofx.train("autoencoder", "ring", run=tmp_path / "noisy", steps=2, quiet=True, report=False, noise="gaussian")
    assert "images" in refused(capsys, "plot", tmp_path / "noisy", "denoising")
    assert main(["denoise", str(tmp_path / "noisy"), "--out", str(tmp_path / "x.csv")]) == 0


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sparsity": "kl", "code_activation": "tanh"}, "code-activation"),
        ({"noise": "masking", "noise_strength": 1.5}, "noise-strength"),
        ({"noise": "salt_and_pepper"}, "images"),
        ({"sparsity": "top_k", "k": 5}, "k must be at most the 4"),
        ({"sparsity_target": 1.0}, "sparsity-target"),
    ],
)
def test_what_does_not_fit_is_refused(fields, words):
    with pytest.raises(UsageError, match=words):
        autoencoder(**fields)


def test_adadelta_at_its_own_rate_learns(plane):
    """Its learning rate is 1: at the other optimizers' rate it hardly moves."""
    dataset = data.load("digits")

    def error(lr):
        optimizer = dataclasses.replace(Autoencoder.Config().optimizer, name="adadelta", lr=lr)
        model = autoencoder(dataset.spec, latent_dim=32, reconstruction="cross_entropy", optimizer=optimizer)
        trainer = Trainer(model, dataset, Settings(steps=150, batch_size=64, ema=0.9))
        trainer.train()
        return trainer.clock.best

    assert error(1.0) < error(1e-3) - 1
