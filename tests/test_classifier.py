"""The classifier against logistic regression by another hand, its loss against formulas, the frozen network against its claims."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest
import torch

import pofx
from pofx import data, discovery, features
from pofx.cli import main
from pofx.core import Attributes, Batch, Classes, DataSpec, Encodes, Optimizer, UsageError, Values
from pofx.evaluate import evaluate
from pofx.settings import Settings
from pofx.trainer import Trainer

CLS = discovery.model("classifier")
PLANE = DataSpec("vectors", (2,), label=Classes(("a", "b", "c")), size=1000)
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
MADE = sorted(features.FROZEN.glob("*.safetensors"))


def build(spec=PLANE, **config):
    torch.manual_seed(0)
    return CLS(spec, CLS.Config(**config))


def some(n=12):
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(n, 2, generator=generator), torch.arange(n) % 3)


def test_logistic_regression_finds_the_maximum_of_the_likelihood():
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    label = np.arange(900) % 3
    x = (random.standard_normal((900, 2)) + np.array([[0, 0], [1, 0], [0, 1]])[label]).astype(np.float32)
    dataset = data.from_arrays(x, label)
    model = CLS(dataset.spec, CLS.Config(architecture="logistic", optimizer=Optimizer(lr=0.1, decay="linear")))
    part, held = (split.batch(torch.arange(len(split))) for split in (dataset.train, dataset.validation))
    # Every batch is the whole training part, so that there is one optimum to go to.
    trainer = Trainer(model, dataset, Settings(steps=300, batch_size=len(part.x), ema=0.0, precision="fp32"))
    trainer.train()
    theirs = LogisticRegression(C=1e8, tol=1e-8).fit(part.x.numpy(), part.label.numpy())
    with torch.no_grad():
        mine = trainer.model.eval().classify(held.x).softmax(1).numpy()
    assert mine == pytest.approx(theirs.predict_proba(held.x.numpy()), abs=1e-3)


def test_the_loss_is_the_mean_over_labelled_examples():
    model, batch = build(), some()
    hidden = batch._replace(label=torch.where(torch.arange(12) < 7, batch.label, -1))
    few, seven = model.loss(hidden), model.loss(Batch(batch.x[:7], batch.label[:7]))
    torch.testing.assert_close(few.total, seven.total)
    assert torch.equal(few.metrics["accuracy"], seven.metrics["accuracy"])
    log_p = model.classify(batch.x[:7]).log_softmax(1)
    torch.testing.assert_close(seven.total, -log_p[torch.arange(7), batch.label[:7]].mean())


def test_a_batch_without_any_label_moves_nothing():
    model, batch = build(), some()
    total = model.loss(batch._replace(label=torch.full((12,), -1))).total
    total.backward()
    assert total.item() == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_smoothed_labels_are_for_training_alone():
    model, plain, batch = build(label_smoothing=0.3), build(), some()
    log_p = plain.classify(batch.x).log_softmax(1)
    smoothed = 0.7 * plain.loss(batch).total - 0.3 * log_p.mean()
    torch.testing.assert_close(model.train().loss(batch).total, smoothed)
    torch.testing.assert_close(model.eval().loss(batch).total, plain.loss(batch).total)


def test_the_logits_are_linear_in_the_rectified_code():
    model = build(features=5, hidden=(7,))
    x = some().x
    code = model.encode(x)
    assert code.shape == (12, 5)
    assert bool((code < 0).any()), "the code is not rectified"
    torch.testing.assert_close(model.classify(x), model.head(code.relu()))


def test_logistic_regression_has_no_code():
    model = build(architecture="logistic")
    assert Encodes not in model.capabilities
    assert Encodes in build().capabilities
    with pytest.raises(UsageError, match="no hidden layer"):
        model.encode(some().x)


@pytest.mark.parametrize("label", [None, Attributes(("warm", "wet")), Values(("height",))])
def test_data_without_classes_are_refused(label):
    with pytest.raises(UsageError, match=r"--data\.label"):
        build(DataSpec("vectors", (2,), label=label, size=1000))


@pytest.mark.parametrize("architecture", ["conv", "pooling"])
def test_convolutions_are_for_images(architecture):
    with pytest.raises(UsageError, match="choose dense or logistic"):
        build(architecture=architecture)
    for shape in ((1, 28, 28), (3, 5, 9)):
        model = build(DataSpec("images", shape, label=PLANE.label), architecture=architecture, features=7)
        x = torch.rand(2, *shape)
        assert model.classify(x).shape == (2, 3)
        torch.testing.assert_close(model.classify(x), model.head(model.encode(x).relu()))


@pytest.mark.parametrize(("kind", "shape", "size", "expected"), [
    ("images", (1, 8, 8), 1500, "conv"), ("vectors", (2,), 1000, "dense"), ("vectors", (500,), 1000, "logistic"), ("sequences", (9, 2), 5000, "dense"),
])  # fmt: skip
def test_the_recipe_fits_the_data(kind, shape, size, expected):
    assert CLS.recipe(DataSpec(kind, shape, label=PLANE.label, size=size), None).config.architecture == expected


def test_from_training_to_the_page(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "classifier", "--data", "digits", "--steps", "150", "--run", str(run), "--quiet"]) == 0
    model, dataset = pofx.load(run), data.load("digits")
    rows = {row.name: row for row in evaluate(model, dataset).rows}
    test = dataset.test.batch(torch.arange(len(dataset.test)))
    with torch.no_grad():
        logits = model.classify(test.x)
    accuracy, entropy = rows["accuracy"], rows["cross-entropy of labels"]
    assert accuracy.model == pytest.approx(float((logits.argmax(1) == test.label).float().mean()))
    assert entropy.model == pytest.approx(float(torch.nn.functional.cross_entropy(logits, test.label)), abs=1e-5)
    assert (accuracy.n, entropy.n) == (len(test.x), len(test.x))
    assert accuracy.model > 0.85
    assert max(accuracy.baselines.values()) < 0.2
    # Ten classes, all but equally frequent.
    assert entropy.model < 0.5 < min(entropy.baselines.values()) == pytest.approx(np.log(10), abs=0.05)
    capsys.readouterr()
    assert main(["encode", str(run)]) == 0
    with np.load(capsys.readouterr().out.strip()) as codes:
        assert codes["z"].shape == (len(test.x), 64)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<img alt="latent"' in page
    assert "could not be drawn" not in page


# ------------------------------------------------------------------------------------------------ networks that come with pofx


def test_there_is_a_frozen_network():
    assert "fashion_mnist" in {path.stem for path in MADE}


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_a_frozen_network_is_small_and_what_it_says(path):
    made, content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == made["sha256"]
    assert len(content) < 1_000_000
    assert made["accuracy"] >= 0.91
    model = features.instrument(path)
    assert model.spec.to_json() == made["spec"]
    assert not model.training
    x = torch.rand(5, *model.spec.shape)
    found = features.frozen(path)
    assert made["sha256"][:8] in found.name
    assert found(x).shape == (5, model.config.features)
    with torch.no_grad():
        assert found(x) * made["unit"] == pytest.approx(model.encode(x).numpy(), rel=1e-5)


def test_a_damaged_frozen_network_is_refused(tmp_path):
    for ending in (".safetensors", ".json"):
        shutil.copy(MADE[0].with_suffix(ending), tmp_path)
    copy = tmp_path / MADE[0].name
    features.instrument(copy)
    features.instrument.cache_clear()
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        features.instrument(copy)


@pytest.mark.skipif(not FASHION.exists(), reason="Fashion-MNIST is not installed on this system")
def test_the_frozen_network_is_as_accurate_as_it_says():
    dataset = data.load("fashion_mnist")
    model, accuracy = features.classifier(dataset)
    assert accuracy >= 0.91
    some = torch.arange(2000)
    batch = dataset.test.batch(some)
    with torch.no_grad():
        right = float((model.classify(batch.x).argmax(1) == batch.label).double().mean())
    assert right == pytest.approx(accuracy, abs=4 * (accuracy * (1 - accuracy) / 2000) ** 0.5)
    # In the unit of the features, training data have variance 1 on average.
    spread = features.choose("auto", dataset)(dataset.train.batch(dataset.train.positions(shuffle=5)[:2000]).x).var(0)
    assert spread.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.skipif(not FASHION.exists(), reason="Fashion-MNIST is not installed on this system")
def test_other_pictures_of_the_same_name_do_not_get_the_frozen_network():
    for options in (data.Options(bits=1), data.Options(size="14")):
        with pytest.raises(UsageError, match="no frozen network"):
            features.choose("frozen", data.load("fashion_mnist", options))
