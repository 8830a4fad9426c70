"""Latent tools: noise that is cut off, codes found behind given examples, directions that lead to a class."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from scipy.stats import kstest, truncnorm
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, Normal

import pofx
from pofx import core, data, directions, examples, features, inversion
from pofx.cli import main
from pofx.core import Attributes, Batch, Classes, DataSpec, Noise, UsageError, Values
from pofx.figures import traversal
from pofx.models.adversarial.gan import GAN
from pofx.nn.priors import StandardNormal

SMALL = [
    "--steps",
    "30",
    "--batch-size",
    "16",
    "--quiet",
    "--model.architecture",
    "dense",
    "--model.hidden",
    "32",
    "--model.latent-dim",
    "6",
]


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    """A small run that has learned something, of digits."""
    path = tmp_path_factory.mktemp("gan") / "run"
    assert main(["train", "gan", "--data", "digits", "--run", str(path), *SMALL]) == 0
    return path


def small_gan(**fields):
    torch.manual_seed(0)
    spec = DataSpec("images", (1, 8, 8), label=Classes(("a", "b", "c")), size=1000, bits=8)
    return GAN(spec, dataclasses.replace(GAN.recipe(spec, None).config, architecture="dense", hidden=(32,), latent_dim=4, **fields)).eval()


# ------------------------------------------------------------------------------------------------------------- truncation


def test_truncation_draws_the_same_examples_nearer_to_the_middle():
    free = StandardNormal(50).draw(Noise(0, 100))
    near, far = (StandardNormal(50).truncated(Noise(0, 100), threshold) for threshold in (0.5, 30.0))
    assert torch.allclose(far, free, atol=1e-4)
    assert torch.equal(near.sign(), free.sign())
    assert (near.abs() < free.abs()).all()


@pytest.mark.parametrize("threshold", [0.3, 1.0, 2.5])
def test_truncated_noise_is_a_truncated_normal(threshold):
    z = StandardNormal(50).truncated(Noise(0, 400), threshold)
    assert float(z.abs().max()) <= threshold
    assert kstest(z.flatten().numpy(), truncnorm(-threshold, threshold).cdf).pvalue > 0.01
    parts = torch.cat([StandardNormal(50).truncated(Noise(0, 100, first=first), threshold) for first in (0, 100, 200, 300)])
    assert torch.equal(z, parts)


def test_far_truncation_is_none_and_temperature_multiplies():
    z = StandardNormal(50).truncated(Noise(0, 400), 50.0)
    assert kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    assert torch.equal(StandardNormal(50).truncated(Noise(0, 400), 50.0, temperature=0.5), 0.5 * z)


def test_a_gan_decodes_what_it_samples_and_cools():
    model = small_gan()
    z = Noise(3, 5).normal(4)
    torch.testing.assert_close(model.sample(5, noise=Noise(3, 5)), model.decode(z), rtol=0, atol=1e-6)
    torch.testing.assert_close(model.sample(5, noise=Noise(3, 5), temperature=0.5), model.decode(0.5 * z), rtol=0, atol=1e-6)
    still = model.sample(5, noise=Noise(3, 5), temperature=0.0)
    torch.testing.assert_close(still, model.decode(torch.zeros(5, 4)), rtol=0, atol=1e-6)
    spread = [model.sample(200, noise=Noise(0, 200), truncation=t).std(0).mean() for t in (0.2, 1.0, 3.0)]
    assert spread == sorted(spread)


def test_truncation_is_refused_where_it_means_nothing(gan, capsys):
    model = small_gan()
    with pytest.raises(UsageError, match="above 0"):
        model.sample(2, noise=Noise(0, 2), truncation=0.0)
    model.fitted = directions.Moved(model, torch.zeros(4))
    with pytest.raises(UsageError, match="leave one of them out"):
        model.sample(2, noise=Noise(0, 2), truncation=1.0)
    assert "above 0" in refused(capsys, "sample", gan, "--truncation", -1)


def test_a_conditional_gan_decodes_under_its_label():
    model = small_gan(conditional=True)
    z = torch.randn(1, 4)
    assert len({model.decode(z, label=torch.tensor([y])).sum().item() for y in (-1, 0, 1, 2)}) == 4
    assert torch.equal(model.decode(z), model.decode(z, label=torch.tensor([-1])))


# -------------------------------------------------------------------------------------------------------------- inversion


def test_the_code_of_a_generated_image_is_found():
    model = small_gan()
    batch = Batch(examples.decode(model, Noise(9, 5).normal(4)))
    settings = inversion.Settings(steps=200, prior_weight=0.0)
    found = inversion.invert(model, batch, settings)
    assert found.codes.shape == (5, 4)
    torch.testing.assert_close(found.x, examples.decode(model, found.codes), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.error, inversion.squares(found.x, batch.x))
    # Nearer than any draw of the prior, and near.
    assert (found.error < 0.1 * found.drawn).all()
    again = inversion.invert(model, batch, settings)
    assert torch.equal(found.codes, again.codes)
    other = inversion.invert(model, batch, dataclasses.replace(settings, seed=1))
    assert not torch.equal(found.codes, other.codes)


def test_the_nearest_draw_is_the_nearest():
    model = small_gan()
    z = examples.prior_codes(model, inversion.DRAWS, 0)[:3]
    found = inversion.invert(model, Batch(examples.decode(model, z)), inversion.Settings(steps=1, starts=1, prior_weight=0.0))
    assert (found.drawn == 0).all()
    torch.testing.assert_close(found.codes, z)


def test_more_weight_on_the_prior_keeps_codes_nearer_to_it():
    model = small_gan()
    far = Batch(examples.decode(model, 6 * Noise(9, 6).normal(4)))
    length = [
        inversion.invert(model, far, inversion.Settings(steps=60, prior_weight=v)).codes.norm(dim=1).mean() for v in (0.0, 1e-2, 10.0)
    ]
    assert length[0] > length[1] > length[2]


def test_features_have_a_part_in_what_is_nearest():
    model = small_gan()
    batch = Batch(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    name, smooth = features.smooth(data.load("digits"))
    assert name == "random convolutions"
    settings = inversion.Settings(steps=80, prior_weight=0.0, feature_weight=1.0)
    with_them, without = (inversion.invert(model, batch, settings, features=f) for f in (smooth, None))

    def distance(found):
        return (smooth(found.x) - smooth(batch.x)).square().mean()

    assert distance(with_them) < distance(without)
    assert with_them.error.mean() > without.error.mean()


def test_features_are_smooth_and_leave_the_model_alone():
    model = small_gan().train()
    model.discriminator.requires_grad_(False)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    flat = torch.zeros(2, 1, 8, 8, requires_grad=True)
    features.smooth(data.load("digits"))[1](flat).sum().backward()
    assert flat.grad.isfinite().all()
    inversion.invert(model, Batch(torch.rand(2, 1, 8, 8)), inversion.Settings(steps=2))
    assert model.training
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0])
        assert value.requires_grad == before[name][1]
        assert value.grad is None


def test_labels_are_given_to_a_conditional_model():
    model = small_gan(conditional=True)
    label = torch.tensor([0, 2, 1, 2])
    batch = Batch(examples.decode(model, Noise(9, 4).normal(4), label), label)
    settings = inversion.Settings(steps=150, prior_weight=0.0)
    told = inversion.invert(model, batch, settings)
    wrong = inversion.invert(model, Batch(batch.x, (label + 1) % 3), settings)
    assert (told.error < 0.1 * wrong.error.clamp(min=1e-6)).all()
    torch.testing.assert_close(told.x, examples.decode(model, told.codes, label), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"starts": 0}, "starts must be at least 1"),
        ({"steps": 0}, "steps"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"prior_weight": -1.0}, "prior-weight"),
    ],
)
def test_settings_out_of_bounds(fields, says):
    with pytest.raises(UsageError, match=says):
        inversion.Settings(**fields)


def test_what_no_gradient_leads_to_is_refused():
    spec = DataSpec("images", (1, 8, 8), size=1000, bits=8)
    cls = pofx.discovery.model("vq_vae")
    model = cls(spec, dataclasses.replace(cls.recipe(spec, None).config)).eval()
    with pytest.raises(UsageError, match="finitely many"):
        inversion.invert(model, Batch(torch.rand(2, 1, 8, 8)))
    cls = pofx.discovery.model("classifier")
    spec = dataclasses.replace(spec, label=Classes(("a", "b")))
    classifier = cls(spec, cls.recipe(spec, None).config)
    with pytest.raises(UsageError, match="maps codes to data"):
        inversion.invert(classifier, Batch(torch.rand(2, 1, 8, 8)))


def test_invert_writes_codes_images_and_a_picture(gan, tmp_path, capsys):
    arguments = ["invert", str(gan), "--n", "3", "--steps", "5", "--starts", "2", "--quiet", "--out", str(tmp_path / "found")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{tmp_path / 'found'}: 3 images, PSNR ")
    codes = np.load(tmp_path / "found" / "codes.npz")
    assert codes["z"].shape == (3, 6)
    assert np.array_equal(codes["z"], np.load(tmp_path / "found" / "codes.npy"))
    assert list(codes["label"]) == examples.first(data.load("digits").test, 3).label.tolist()
    x = pofx.load(gan).decode(torch.from_numpy(codes["z"])).numpy()[:, 0]
    for i in range(3):
        with Image.open(next((tmp_path / "found" / "images").rglob(f"0000{i}.png"))) as picture:
            np.testing.assert_allclose(np.asarray(picture), 255 * x[i], atol=1)
    with Image.open(tmp_path / "found" / "pairs.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 0
    assert "not an empty folder" in refused(capsys, *arguments)
    assert "--n must" in refused(capsys, "invert", gan, "--n", 0)


def test_vectors_are_inverted_in_their_own_units(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "gan", "--data", "ring", "--run", str(run), "--steps", "5", "--quiet", "--model.hidden", "8"]) == 0
    capsys.readouterr()
    assert main(["invert", str(run), "--n", "6", "--steps", "20", "--quiet", "--out", str(tmp_path / "found")]) == 0
    assert "6 vectors, root mean squared error" in capsys.readouterr().out
    assert len((tmp_path / "found" / "results.csv").read_text().splitlines()) == 7
    assert (tmp_path / "found" / "pairs.png").stat().st_size > 0


def test_a_table_of_categories_alone_is_refused(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("town\n" + "\n".join(["Bern", "Graz"] * 30) + "\n")
    run = tmp_path / "run"
    assert (
        main(["train", "gan", "--data", str(tmp_path / "x.csv"), "--run", str(run), "--steps", "2", "--quiet", "--model.hidden", "8"]) == 0
    )
    assert "does not change smoothly" in refused(capsys, "invert", run, "--n", 4, "--quiet", "--out", tmp_path / "found")


def test_an_encoder_gives_one_of_the_starts():
    torch.manual_seed(0)
    spec = DataSpec("images", (1, 8, 8), size=1000, bits=8)
    cls = pofx.discovery.model("autoencoder")
    model = cls(spec, dataclasses.replace(cls.recipe(spec, None).config, hidden=(16,), latent_dim=4)).eval()
    batch = Batch(torch.rand(3, 1, 8, 8))
    own = inversion.squares(examples.reconstruct(model, batch), batch.x)
    found = inversion.invert(model, batch, inversion.Settings(steps=1, starts=1, lr=1e-9, prior_weight=0.0))
    assert (found.error <= own + 1e-6).all()


# ------------------------------------------------------------------------------------------------------------- directions


class Plane(core.Model, core.Decodes, core.Classifies):
    """decode(z) = 2 z + 1 in the plane, two of three classes in its halves and one nowhere; a prior of mean 1 and scales 2 and 0.5."""

    kinds = frozenset({"vectors"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        """Nothing to choose."""

    def decode(self, z, *, label=None):
        return 2 * z + 1

    def prior(self):
        return Independent(Normal(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.5])), 1)

    def classify(self, x):
        # The border runs through the mean of the prior, decoded: (3, 3).
        side = x[:, 1] - 3
        return torch.stack((-side, side, torch.full_like(side, -1e9)), 1)


def plane():
    return Plane(DataSpec("vectors", (2,), label=Classes(("below", "above", "nowhere"))), Plane.Config())


def found_in_the_plane():
    model = plane()
    judge = directions.Judge(model, ("below", "above", "nowhere"))
    z = directions.draws(model, 8000, 0)
    return model, judge, directions.find(z, directions.named(model, judge, z), judge.names, examples.prior_scale(model))


def test_directions_are_normals_of_the_border_as_long_as_a_standard_deviation():
    _, _, found = found_in_the_plane()
    assert found.names == ("below", "above")
    torch.testing.assert_close(found.vectors, torch.tensor([[0.0, -0.5], [0.0, 0.5]]), rtol=0, atol=0.05)
    assert found.accuracy > 0.97
    assert found.often == pytest.approx(0.5, abs=0.05)


def test_the_share_of_a_class_rises_along_its_direction_as_the_normal_distribution_says():
    model, judge, found = found_in_the_plane()
    seen = directions.effect(model, found, judge, directions.draws(model, 4000, 1))
    expected = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(directions.STRENGTHS)).numpy()
    assert np.abs(seen.shown - expected).max() < 0.04
    # Moved by s, those within s of the border change sides.
    assert np.abs(seen.changed - np.abs(expected - 0.5)).max() < 0.04
    assert (np.diff(seen.shown, axis=1) >= 0).all()


def test_a_direction_raises_its_class_in_what_is_sampled():
    model, judge, found = found_in_the_plane()
    own = [model.decode(directions.Moved(model, 0 * found.vectors[1]).draw(Noise(0, 500)))]
    own += [model.decode(directions.Moved(model, 2 * found.vectors[i]).draw(Noise(0, 500))) for i in (0, 1)]
    shares = [(judge(x) == 1).mean() for x in own]
    assert shares[1] < 0.1 < shares[0] < 0.9 < shares[2]


@pytest.mark.parametrize(
    "prior",
    [
        Independent(Normal(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5])), 1),
        MultivariateNormal(torch.tensor([1.0, -1.0]), torch.tensor([[2.0, 0.6], [0.6, 0.5]])),
        MixtureSameFamily(
            torch.distributions.Categorical(torch.ones(2)),
            Independent(Normal(torch.tensor([[3.0, 0.0], [-1.0, -2.0]]), torch.ones(2, 2)), 1),
        ),
    ],
    ids=["diagonal", "full", "mixture"],
)
def test_moved_codes_come_from_the_prior_in_parts_that_equal_the_whole(prior):
    model = plane()
    model.prior = lambda: prior
    step = torch.tensor([10.0, 0.0])
    moved = directions.Moved(model, step)
    z = moved.draw(Noise(0, 3000))
    torch.testing.assert_close(z[:8], torch.cat([moved.draw(Noise(0, 4, first=first)) for first in (0, 4)]), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.mean(0) - step, prior.mean, rtol=0, atol=0.15)
    torch.testing.assert_close(z.std(0), prior.stddev, rtol=0.06, atol=0)
    if not isinstance(prior, MixtureSameFamily):
        cool = moved.draw(Noise(0, 3000), temperature=0.5)
        torch.testing.assert_close(cool.std(0), 0.5 * z.std(0), rtol=1e-3, atol=0)
    else:
        with pytest.raises(UsageError, match="temperature"):
            moved.draw(Noise(0, 2), temperature=0.5)


def test_a_fitted_prior_is_moved_too():
    model = plane()

    class Fitted(core.CodePrior):
        def draw(self, noise, *, temperature=1.0):
            return temperature * torch.ones(noise.n, 2)

    model.fitted = Fitted()
    torch.testing.assert_close(directions.draws(model, 3, 0), torch.ones(3, 2))
    moved = directions.Moved(model, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(moved.draw(Noise(0, 2), temperature=3.0), torch.tensor([4.0, 5.0]).expand(2, 2))


def test_directions_need_two_classes():
    model = plane()
    z = directions.draws(model, 100, 0)
    with pytest.raises(UsageError, match="above 100"):
        directions.find(z, np.ones(100, dtype=np.int64), ("below", "above"), examples.prior_scale(model))


def test_directions_are_found_kept_and_sampled_along(gan, tmp_path, capsys):
    assert main(["train", "classifier", "--data", "digits", "--run", str(tmp_path / "judge"), "--steps", "150", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["directions", str(gan), "--n", "400", "--classifier", str(tmp_path / "judge"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    step = json.loads((gan / "run.json").read_text())["last"]
    path = gan / "directions" / f"{step}.npz"
    assert printed.splitlines()[-1] == str(path)
    names = np.load(path)["names"].tolist()
    with Image.open(path.with_suffix(".png")) as picture:
        assert np.asarray(picture.convert("L")).std() > 0
    for strength in (0, 5):
        out = tmp_path / f"{strength}.npz"
        assert main(["sample", str(gan), "--n", "8", "--direction", names[0], "--strength", str(strength), "--out", str(out)]) == 0
    assert main(["sample", str(gan), "--n", "8", "--out", str(tmp_path / "own.npz")]) == 0
    own, still, moved = (np.load(tmp_path / f"{name}.npz")["x"] for name in ("own", "0", "5"))
    assert np.array_equal(own, still)
    assert not np.array_equal(own, moved)
    assert "unknown direction" in refused(capsys, "sample", gan, "--direction", "trousers")
    assert "--strength is of a direction" in refused(capsys, "sample", gan, "--strength", 2)
    # Codes with labels, as `encode` and `invert` write them.
    z = directions.draws(pofx.load(gan), 60, 3).numpy()
    np.savez(tmp_path / "codes.npz", z=z, label=np.arange(60) % 3)
    arguments = ["directions", gan, "--classifier", tmp_path / "judge", "--quiet", "--out", tmp_path / "d.npz", "--codes"]
    assert main([*map(str, arguments), str(tmp_path / "codes.npz")]) == 0
    assert np.load(tmp_path / "d.npz")["names"].tolist() == ["0", "1", "2"]
    np.savez(tmp_path / "short.npz", z=z[:, :2], label=np.arange(60) % 3)
    assert "finite rows of 6" in refused(capsys, *arguments, tmp_path / "short.npz")
    np.savez(tmp_path / "bare.npz", z=z)
    assert "no label" in refused(capsys, *arguments, tmp_path / "bare.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK no")
    assert "not a whole .npz" in refused(capsys, *arguments, tmp_path / "broken.npz")
    assert "there is no file" in refused(capsys, *arguments, tmp_path / "none.npz")
    assert "written to .npz" in refused(capsys, *arguments[:-3], "--out", tmp_path / "d.png")


@pytest.mark.parametrize("binary", [True, False], ids=["attributes", "values"])
def test_each_attribute_and_value_has_a_direction_of_its_own(binary):
    random = np.random.default_rng(0)
    y = random.standard_normal((2000, 3))
    mean, scale = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([2.0, 1.0, 0.5])
    z = mean + scale * torch.from_numpy(y).float()
    # The first two go with units 0 and -2, the third is the same everywhere.
    seen = np.stack((y[:, 0], -y[:, 2], np.ones(2000)), 1)
    label = (seen > 0).astype(np.int64) if binary else (seen + 0.3 * random.standard_normal(seen.shape) * [1, 1, 0]).astype(np.float32)
    label[:100, 0] = -1 if binary else math.nan
    meaning = Attributes(("smiling", "glasses", "always")) if binary else Values(("age", "height", "always"))
    found = directions.find_each(z, label, meaning, (mean, scale))
    assert found.names == meaning.names[:2]
    torch.testing.assert_close(found.vectors, torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, -0.5]]), atol=0.1, rtol=0)
    right, often = zip(*found.each, strict=True)
    assert min(right) > (0.95 if binary else 0.85)
    assert often == pytest.approx((0.5, 0.5) if binary else (0.0, 0.0), abs=0.05)
    with pytest.raises(UsageError, match="give more codes"):
        directions.find_each(z[:8], label[:8], meaning, (mean, scale))


def test_samples_gain_an_attribute_along_its_direction(tmp_path, capsys):
    random = np.random.default_rng(0)
    label = random.integers(0, 2, (600, 2))
    x = 3.0 * label + 0.5 * random.standard_normal((600, 2))
    np.savez(tmp_path / "x.npz", x=np.concatenate((x, x), 1).astype(np.float32), label=label)
    for name in ("vae", "gan"):
        arguments = [
            "train",
            name,
            "--data",
            str(tmp_path / "x.npz"),
            "--run",
            str(tmp_path / name),
            "--steps",
            "150" if name == "vae" else "2",
        ]
        assert main([*arguments, "--batch-size", "64", "--quiet", "--model.latent-dim", "2"]) == 0
    capsys.readouterr()
    assert main(["directions", str(tmp_path / "vae"), "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert all("told right" in line for line in printed[:2])
    names = np.load(printed[-1])["names"].tolist()
    drawn = {}
    for i, name in enumerate(names):
        for strength in (-2, 2):
            out = tmp_path / "out.npz"
            assert (
                main(["sample", str(tmp_path / "vae"), "--n", "200", "--direction", name, "--strength", str(strength), "--out", str(out)])
                == 0
            )
            drawn[i, strength] = np.load(out)["x"].mean(0)
    for i in (0, 1):
        change = drawn[i, 2] - drawn[i, -2]
        assert change[i] > 1.5 > abs(change[1 - i])
    # A game has no encoder: its codes come with their labels.
    assert "--codes" in refused(capsys, "directions", tmp_path / "gan", "--quiet")
    z = random.standard_normal((200, 2)).astype(np.float32)
    np.savez(tmp_path / "codes.npz", z=z, label=(z > 0).astype(np.int64))
    assert main(["directions", str(tmp_path / "gan"), "--codes", str(tmp_path / "codes.npz"), "--quiet"]) == 0
    found = np.load(capsys.readouterr().out.splitlines()[-1])["vectors"]
    assert (np.diag(found) > 0.9).all()


def test_directions_of_another_checkpoint_are_refused(gan, tmp_path, capsys):
    assert "pofx directions" in refused(capsys, "sample", gan, "--direction", "0", "--directions", tmp_path / "none.npz")
    content = {"vectors": np.zeros((2, 6)), "names": np.array(["0", "1"]), "accuracy": 1.0, "often": 0.5, "checkpoint": np.array("other")}
    np.savez(tmp_path / "other.npz", **content)
    assert "another checkpoint" in refused(capsys, "sample", gan, "--direction", "0", "--directions", tmp_path / "other.npz")


def test_data_without_classes_need_a_classifier(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((80, 3)).astype(np.float32))
    run = tmp_path / "run"
    assert (
        main(["train", "gan", "--data", str(tmp_path / "x.npy"), "--run", str(run), "--steps", "2", "--quiet", "--model.hidden", "8"]) == 0
    )
    assert "--classifier RUN" in refused(capsys, "directions", run)


# ---------------------------------------------------------------------------------------------------------------- figures


def test_a_traversal_without_an_encoder_shows_the_units_that_the_decoder_listens_to():
    model = small_gan()
    mean, scale = examples.prior_scale(model)

    def decode(z, *, label=None):
        return (0.5 + 0.1 * z[:, 2] + 0.01 * z[:, 0])[:, None, None, None].expand(-1, 1, 8, 8)

    model.decode = decode
    found = traversal.influence(model, mean, scale)
    np.testing.assert_allclose(found, [0.02**2, 0, 0.2**2, 0], atol=1e-6)
    units, names, _, _ = traversal._units(model, data.load("digits"))
    assert units[:2] == [2, 0]
    assert names[0] == "z2  0.0400"


@pytest.mark.parametrize("figure", ["traversal", "interpolation", "manifold"])
def test_figures_of_codes_are_drawn_for_a_model_that_does_not_encode(gan, figure, tmp_path):
    assert main(["plot", str(gan), figure, "--out", str(tmp_path / "x.gif")]) == 0
    with Image.open(tmp_path / "x.gif") as film:
        frames = []
        for i in range(min(6, film.n_frames)):
            film.seek(i)
            frames.append(np.asarray(film.convert("L")).astype(int))
    assert len(frames) == 6
    assert all((before != after).any() for before, after in itertools.pairwise(frames))
