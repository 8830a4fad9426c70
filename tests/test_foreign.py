"""Networks of one's own: checked before training, trained as a copy, recorded, and given again."""

import json
import shutil

import pytest
import torch
from refusals import refused
from torch import nn

import pofx
from pofx import core, data, report
from pofx.cli import main
from pofx.core import Batch, UsageError
from pofx.models.autoencoding.autoencoder import Autoencoder
from pofx.nn.foreign import Foreign, custom

SMALL = {"steps": 6, "batch_size": 16, "latent_dim": 5, "checkpoint_every": 3, "quiet": True, "report": False, "precision": "fp32"}


class Encoder(nn.Module):
    """A network with a running mean, a `view` and float64 at the end, as somebody may write one."""

    def __init__(self, code=5, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.head = nn.Linear(width * 16, code)

    def forward(self, x):
        return self.head(self.features(x).view(len(x), -1)).double()


def decoder(code=5):
    return nn.Sequential(nn.Linear(code, 64), nn.Unflatten(1, (1, 8, 8)))


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign") / "run"
    torch.manual_seed(0)
    encoder = Encoder()
    before = state(encoder)
    run = pofx.train("autoencoder", "digits", run=folder, encoder=encoder, decoder=decoder(), **SMALL)
    assert same(state(encoder), before), "the network that was given was trained itself"
    return run


def test_a_run_records_that_they_were_custom(trained):
    info = json.loads((trained.path / "run.json").read_text())
    kept = json.loads(next((trained.path / "checkpoints").glob("*/config.json")).read_text())
    assert set(info["custom"]) == {"encoder", "decoder"}
    assert kept["custom"] == info["custom"]
    assert info["custom"]["encoder"] in dict(report.facts(trained))["networks of one's own"]
    plain = Autoencoder(data.load("digits").spec, Autoencoder.Config(hidden=(8,)))
    assert custom(plain) == {}


def test_train_load_and_use(trained):
    x = data.load("digits").test.batch(torch.arange(5)).x
    model, given = pofx.load(trained.path, encoder=Encoder(), decoder=decoder()), pofx.load(trained)
    z = model.encode(x)
    assert z.dtype == torch.float32
    assert torch.equal(z, given.encode(x))
    assert not torch.equal(z, Foreign(Encoder(), "encoder", (1, 8, 8), (5,)).eval()(x))
    assert model.decode(z).shape == x.shape
    assert report.write(trained).exists()


def test_one_network_can_stand_in_two_models(trained):
    """Loading gives each model a copy: the second does not change the first."""
    encoder = Encoder()
    kept, x = state(encoder), torch.rand(2, 1, 8, 8)
    first, second = (pofx.load(f"{trained.path}@{step}", encoder=encoder, decoder=decoder()) for step in (3, "last"))
    assert same(state(encoder), kept)
    assert not torch.equal(first.encode(x), second.encode(x))


def test_resuming_goes_on_bit_for_bit(tmp_path):
    def networks():
        torch.manual_seed(1)
        return {"encoder": Encoder(), "decoder": decoder()}

    folders = tmp_path / "straight", tmp_path / "parts"
    for folder in folders:
        pofx.train("autoencoder", "digits", run=folder, **networks(), **{**SMALL, "steps": 12})
    for step in (9, 12):
        shutil.rmtree(folders[1] / "checkpoints" / f"{step:09d}")
    again = pofx.train("autoencoder", run=folders[1], resume=True, encoder=Encoder(), decoder=decoder(), quiet=True, report=False)
    assert again.info["last"] == 12
    one, other = (pofx.load(f"{run.path}@last", **networks()).state_dict() for run in (pofx.Run.read(folders[0]), again))
    assert same(one, other)


def test_python_says_what_is_missing_or_wrong(trained):
    path = trained.path
    with pytest.raises(UsageError, match=r"pofx\.load.*encoder=\.\.\."):
        pofx.load(path)
    with pytest.raises(UsageError, match="custom decoder"):
        pofx.load(path, encoder=Encoder())
    with pytest.raises(UsageError, match="resume=True"):
        pofx.train("autoencoder", run=path, resume=True, steps=8)
    for other in (Encoder(width=3), nn.Sequential(nn.Flatten(), nn.Linear(64, 5))):
        for use in (pofx.load, lambda path, **given: pofx.train("autoencoder", run=path, resume=True, steps=8, **given)):
            with pytest.raises(UsageError, match="given encoder is not the one"):
                use(path, encoder=other, decoder=decoder())
    with pytest.raises(UsageError, match="frozen"):
        pofx.train("autoencoder", run=path, resume=True, steps=8, encoder=Encoder().requires_grad_(False), decoder=decoder())
    # To be looked at, a frozen one will do.
    pofx.load(path, encoder=Encoder().requires_grad_(False), decoder=decoder())


def test_a_run_without_them_takes_none(tmp_path):
    run = pofx.train("autoencoder", "digits", run=tmp_path / "run", decoder=decoder(), **SMALL)
    with pytest.raises(UsageError, match="own encoder: leave encoder= out"):
        pofx.load(run.path, encoder=Encoder(), decoder=decoder())
    assert set(run.info["custom"]) == {"decoder"}
    with pytest.raises(UsageError, match=r"must be a torch\.nn\.Module"):
        pofx.load(run.path, decoder="mine.py")


@pytest.mark.parametrize(
    "verb",
    ["sample", "reconstruct", "encode", "interpolate", "evaluate", "plot RUN latent", "train --resume --steps 9 --run", "train --config"],
)
def test_every_verb_says_it_in_one_sentence(trained, capsys, verb):
    path = trained.path / "run.json" if verb.endswith("--config") else trained.path
    words = verb.replace("RUN", str(path)).split() if "RUN" in verb else [*verb.split(), path]
    sentence = refused(capsys, *words)
    assert "custom encoder" in sentence
    assert "pofx.load" in sentence


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"encoder": Encoder(4)}, r"\(2, 4\), where the model needs \(2, 5\)"),
        ({"encoder": nn.Linear(3, 5)}, r"fails on an input of shape \(2, 1, 8, 8\)"),
        ({"encoder": Encoder().double()}, "fails on an input"),
        ({"encoder": nn.LSTM(8, 5)}, "LSTM|fails|one tensor"),
        ({"decoder": nn.Linear(5, 64)}, r"\(2, 64\), where the model needs \(2, 1, 8, 8\): end it with nn\.Unflatten\(1, \(1, 8, 8\)\)"),
        ({"encoder": torch.flatten}, r"torch\.nn\.Module"),
        ({"encoder": Encoder().requires_grad_(False)}, "features.0.weight of the given encoder is frozen"),
        ({"discriminator": Encoder()}, "takes decoder and encoder"),
    ],
)
def test_what_does_not_fit_is_told_before_training(given, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        pofx.train("autoencoder", "digits", run=tmp_path / "run", **given, **SMALL)
    assert not (tmp_path / "run").exists()


def test_models_that_take_none_say_so(tmp_path):
    with pytest.raises(UsageError, match="takes none"):
        pofx.train("gan", "digits", run=tmp_path / "run", generator=Encoder(), steps=2)


def test_any_model_with_such_arguments_takes_them(tmp_path, monkeypatch):
    """The arguments of `__init__` are all that a model needs for it."""
    (tmp_path / "mine.py").write_text(
        """
import dataclasses
from pofx import core
from pofx.nn.foreign import Foreign

class Mine(core.Model):
    kinds = frozenset({"images"})

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        optimizer: core.Optimizer = dataclasses.field(default_factory=core.Optimizer)

    def __init__(self, spec, config, *, probe=None):
        super().__init__(spec, config)
        self.probe = Foreign(probe, "probe", spec.shape, (2,))

    def loss(self, batch):
        return core.Loss({"size": self.probe(batch.x).square().mean()})
"""
    )
    monkeypatch.setenv("POFX_PATH", str(tmp_path))

    def probe():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

    run = pofx.train("mine", "digits", run=tmp_path / "run", probe=probe(), steps=3, quiet=True, report=False)
    assert set(run.info["custom"]) == {"probe"}
    assert pofx.load(run.path, probe=probe()).probe(torch.rand(1, 1, 8, 8)).shape == (1, 2)
    assert main(["plot", str(run.path), "curves"]) == 2


def test_precision_and_layout():
    network = Foreign(Encoder(), "encoder", (1, 8, 8), (5,))
    seen = []
    network.network.head.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    model = network.to(memory_format=torch.channels_last)
    for precision in (torch.float32, torch.bfloat16):
        with core.precision(precision):
            assert model(torch.rand(2, 1, 8, 8)).dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_the_dry_run_leaves_no_trace():
    encoder, state_before = Encoder(), torch.get_rng_state()
    network = Foreign(nn.Sequential(encoder, nn.Dropout(0.5)), "encoder", (1, 8, 8), (5,))
    assert torch.equal(torch.get_rng_state(), state_before)
    assert network.network.training
    assert int(network.network[0].features[1].num_batches_tracked) == 0


def test_the_averaged_model_has_networks_of_its_own():
    from pofx.averaging import Average

    spec = data.load("digits").spec
    model = Autoencoder(spec, Autoencoder.Config(latent_dim=5), encoder=Encoder())
    average = Average(model, model.players(), decay=0.5).model
    assert {id(p) for p in model.parameters()}.isdisjoint({id(p) for p in average.parameters()})
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert model.loss(Batch(torch.rand(3, 1, 8, 8))).total.requires_grad
