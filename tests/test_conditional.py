"""Promises of conditional models: labels of every kind are refused, told, drawn and asked for as declared, and samples heed them."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pofx
from pofx import asked, core, data, discovery, examples, figures, fitting
from pofx.core import Attributes, Batch, Classes, DataSpec, Noise, UsageError, Values
from pofx.models.adversarial.gan import GAN
from pofx.models.adversarial.infogan import InfoGAN
from pofx.models.autoencoding.vae import VAE
from pofx.nn import labels
from pofx.nn.labels import Condition

CLASSES, FLAGS = Classes(("cat", "dog", "a, b")), Attributes(("smiling", "glasses"))
VALUES = Values(("age", "height"), mean=(40.0, 170.0), std=(10.0, 5.0))
NAN = math.nan
#: For each kind four labels, of which the third is missing and the last (of classes: none) is partly so.
SOME = {
    "classes": (CLASSES, torch.tensor([0, 2, -1, 1])),
    "attributes": (FLAGS, torch.tensor([[0, 1], [1, 1], [-1, -1], [1, -1]])),
    "values": (VALUES, torch.tensor([[40.0, 175.0], [30.0, 170.0], [NAN, NAN], [50.0, NAN]])),
}
SOME_TEXT = {"attributes": "smiling=1", "values": "age=40"}
KINDS = pytest.mark.parametrize("kind", SOME)
IMAGES, PLANE = DataSpec("images", (1, 8, 8), size=1000, bits=8), DataSpec("vectors", (2,), size=1000)
WAYS = ("projection", "concatenation", "auxiliary_classifier")
CONDITIONAL = [
    name for name in discovery.names("models") if "conditional" in {f.name for f in dataclasses.fields(discovery.model(name).Config)}
]


def build(cls, spec, **fields):
    torch.manual_seed(0)
    return cls(spec, dataclasses.replace(cls.recipe(spec, None).config, **fields))


def condition(kind, size=1000):
    return Condition(dataclasses.replace(PLANE, label=SOME[kind][0], size=size), "model")


def free(model, name):
    player = next(player for player in model.players() if player.name == name)
    model.requires_grad_(False)
    model.zero_grad()
    for _, parameter in player.parameters():
        parameter.requires_grad_(True)
    return player


# --------------------------------------------------------------------------------------------------------- the condition


def test_the_vector_of_a_label():
    like = torch.zeros(4, 2)
    places = [0, 2, 3, 1]
    assert torch.equal(condition("classes").vector(SOME["classes"][1], like), torch.eye(4)[places])
    assert condition("attributes").vector(SOME["attributes"][1], like).tolist() == [[-1, 1], [1, 1], [0, 0], [1, 0]]
    rows = condition("values").vector(SOME["values"][1], like).tolist()
    assert rows == [[0, 1, 1, 1], [-1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]]


@KINDS
def test_no_label_is_the_label_that_is_missing(kind):
    told = condition(kind)
    missing = SOME[kind][1][2:3]
    assert torch.equal(told.vector(None, torch.zeros(1, 2)), told.vector(missing, torch.zeros(1, 2)))


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("classes", torch.tensor([3])),
        ("classes", torch.tensor([0, 1])),
        ("classes", torch.tensor([0.0])),
        ("attributes", torch.tensor([[2, 0]])),
        ("attributes", torch.tensor([0])),
        ("attributes", torch.tensor([[0.0, 1.0]])),
        ("values", torch.tensor([[40.0, math.inf]])),
        ("values", torch.tensor([[40.0]])),
        ("values", torch.tensor([[40, 170]])),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind, label):
    with pytest.raises(UsageError, match="label must be"):
        condition(kind).check(label, 1)


@KINDS
def test_missing_labels_are_learned_from_and_never_sampled(kind):
    told, missing = condition(kind), SOME[kind][1][2:3]
    told.check(missing, 1)
    with pytest.raises(UsageError, match="label must be"):
        told.check(missing, 1, missing=False)


@KINDS
def test_labels_come_from_what_training_showed(kind):
    told = condition(kind)
    fresh = told.draw(Noise(0, 50))
    told.check(fresh, 50, missing=False)
    label = SOME[kind][1]
    told.learn(label)
    drawn = told.draw(Noise(0, 400))
    told.check(drawn, 400, missing=False)
    parts = torch.cat([told.draw(Noise(0, k, first=first)) for first, k in ((0, 100), (100, 300))])
    assert torch.equal(drawn, parts)
    # Of each element only what was seen of it, and all of that.
    for column, seen in zip(drawn.reshape(400, -1).T, label.reshape(4, -1).T, strict=True):
        assert set(column.tolist()) == set(seen[~labels.absent(seen)].tolist())
    assert all(not buffer.is_floating_point() for buffer in told.buffers()), "averaged weights would mix them"


def test_the_last_rows_are_kept_and_what_is_given_chooses_among_them():
    told = condition("attributes", size=3)
    told.learn(torch.tensor([[1, 1]] * 5))
    told.learn(torch.tensor([[0, 0], [1, 0], [0, 0]]))
    assert told.rows.tolist() == [[1, 0], [0, 0], [0, 0]] or sorted(told.rows.tolist()) == [[0, 0], [0, 0], [1, 0]]
    told = condition("attributes")
    told.learn(torch.tensor([[1, 1]] * 3 + [[0, 0]] * 3))
    # The two always go together.
    assert told.complete({0: 1}, Noise(0, 20)).tolist() == [[1, 1]] * 20
    ages = condition("values")
    ages.learn(torch.tensor([[20.0, 160.0], [50.0, 180.0]]))
    drawn = ages.complete({0: 33.0}, Noise(0, 50))
    assert set(drawn[:, 0].tolist()) == {33.0}
    assert set(drawn[:, 1].tolist()) == {160.0, 180.0}


def test_hiding_hides_whole_rows():
    torch.manual_seed(0)
    for label in (torch.zeros(5000, dtype=torch.int64), torch.zeros(5000, 2, dtype=torch.int64), torch.zeros(5000, 2)):
        absent = labels.absent(labels.hide(label)).reshape(5000, -1)
        assert torch.equal(absent.any(1), absent.all(1))
        assert float(absent.any(1).float().mean()) == pytest.approx(labels.HIDDEN, abs=0.02)


# -------------------------------------------------------------------------------------------------------------- asking


def test_what_a_person_asks_for():
    assert asked.parse("dog", CLASSES) == [1]
    assert asked.parse("dog,cat", CLASSES) == [1, 0]
    assert asked.parse("a, b", CLASSES) == [2]
    assert asked.parse("glasses=0, smiling=1", FLAGS) == {1: 0.0, 0: 1.0}
    assert asked.parse("age=41.5", VALUES) == {0: 41.5}


@pytest.mark.parametrize(
    ("text", "meaning", "message"),
    [
        ("dgo", CLASSES, "did you mean dog"),
        ("smiling", FLAGS, "smiling gives no number"),
        ("smile=1", FLAGS, "did you mean smiling"),
        ("smiling=2", FLAGS, "0 or 1"),
        ("smiling=1,smiling=0", FLAGS, "twice"),
        ("age=old", VALUES, "finite number"),
        ("age=inf", VALUES, "finite number"),
    ],
)
def test_what_cannot_be_asked_for(text, meaning, message):
    with pytest.raises(UsageError, match=message):
        asked.parse(text, meaning)


def test_samples_of_several_classes_are_as_many_of_each():
    model = SimpleNamespace(condition=condition("classes"), device=torch.device("cpu"), config=SimpleNamespace(conditional=True))
    assert asked.labels(model, "dog,cat", 4, 0).tolist() == [1, 1, 0, 0]
    plain = SimpleNamespace(condition=None, config=SimpleNamespace(conditional=False))
    assert asked.labels(plain, None, 4, 0) is None
    with pytest.raises(UsageError, match="without labels"):
        asked.labels(plain, "dog", 4, 0)


class Draws(core.Model, core.Samples):
    """Its examples are what a model may begin with: a long code, a first pixel, a code of two numbers."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(core.Config):
        conditional: bool = True

    kinds = frozenset({"vectors"})

    def __init__(self, kind):
        super().__init__(dataclasses.replace(PLANE, label=SOME[kind][0]), self.Config())
        self.condition = condition(kind)

    def sample(self, n, *, noise, label=None):
        again = [Noise(noise.seed, n, first=noise.first) for _ in range(2)]
        return torch.cat((noise.normal(64), again[0].uniform(1), again[1].normal(2)), 1)


@KINDS
def test_a_label_tells_nothing_of_the_noise_beside_it(kind):
    from sklearn.ensemble import RandomForestClassifier

    model, n = Draws(kind), 1000
    x = examples.draw(model, n, seed=3)
    # A long row of Gaussian numbers comes from pairs of uniform ones, by radius and angle.
    told = torch.cat((x, x[:, :8].square() + x[:, 8:16].square()), 1).numpy()
    shown = asked.shown(model.condition, n, 1, 3)[1]
    for label in [asked.labels(model, None, n, 3), *([] if kind == "classes" else [shown, asked.labels(model, SOME_TEXT[kind], n, 3)])]:
        last = label.reshape(n, -1)[:, -1]
        last = (last > last.median()).numpy() if kind == "values" else last.numpy()
        forest = RandomForestClassifier(50, random_state=0).fit(told[: n // 2], last[: n // 2])
        often = max((last == value).mean() for value in set(last.tolist()))
        assert forest.score(told[n // 2 :], last[n // 2 :]) < often + 0.1


def test_the_first_pixel_of_an_untrained_model_does_not_go_with_the_label():
    spec = dataclasses.replace(IMAGES, shape=(1, 2, 2), label=CLASSES, bits=1)
    model = build(discovery.model("made"), spec, conditional=True, hidden=(8,))
    label = asked.labels(model, None, 600, 0)
    first = examples.draw(model, 600, label=label)[:, 0, 0, 0]
    shares = [float(first[label == i].mean()) for i in range(3)]
    assert max(shares) - min(shares) < 0.35


# ---------------------------------------------------------------------------------------------------------- the models


@KINDS
@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("spec", [IMAGES, PLANE], ids=["images", "plane"])
def test_every_conditional_model_takes_every_kind(name, spec, kind):
    meaning, label = SOME[kind]
    if spec.kind not in discovery.model(name).kinds:
        pytest.skip(f"{name} is not for {spec.kind}")
    model = build(discovery.model(name), dataclasses.replace(spec, label=meaning), conditional=True)
    x = torch.rand(4, *spec.shape)
    for player in model.train().players():
        free(model, player.name)
        assert player.loss(Batch(x, label)).total.isfinite()
    with torch.no_grad():
        model.eval()
        whole = label[:2]
        drawn = model.sample(2, noise=Noise(0, 2), label=whole)
        assert not torch.equal(drawn, model.sample(2, noise=Noise(0, 2), label=whole.flip(0)))
        assert model.sample(3, noise=Noise(0, 3)).shape == (3, *spec.shape)
        with pytest.raises(UsageError, match="label must be"):
            model.sample(1, noise=Noise(0, 1), label=label[2:3])


@KINDS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("spec", "architecture"), [(IMAGES, "conv"), (IMAGES, "dense"), (PLANE, "dense")])
def test_a_discriminator_is_told_the_label_or_asked_for_it(spec, architecture, way, kind):
    meaning, label = SOME[kind]
    spec = dataclasses.replace(spec, label=meaning)
    model = build(GAN, spec, conditional=True, conditioning=way, architecture=architecture).train()
    batch = Batch(torch.rand(4, *spec.shape), label)
    for name in ("discriminator", "generator"):
        player = free(model, name)
        loss = player.loss(batch)
        assert ("label" in loss.terms) == (way == "auxiliary_classifier")
        loss.total.backward()
        owned = {id(parameter) for _, parameter in player.parameters()}
        for key, parameter in model.named_parameters():
            if id(parameter) in owned:
                assert parameter.grad is not None, key
            else:
                assert parameter.grad is None, f"{name} moves {key}"
    with torch.no_grad():
        x = batch.x[:1].expand(2, *spec.shape)
        judged = model.judge(x, label=label[:2])
    # An auxiliary classifier's verdict is of x alone.
    assert (judged[0] == judged[1]) == (way == "auxiliary_classifier")
    assert (core.Classifies in model.capabilities) == (way == "auxiliary_classifier" and kind == "classes")


@KINDS
@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_the_head_moves_both_players_towards_the_label(kind, name):
    """Down its own gradient each player makes the label easier to read: of real examples, or of its own."""
    meaning, label = SOME[kind]
    spec = dataclasses.replace(PLANE, label=meaning)
    # A heavy head, so that the rest of the loss does not decide.
    model = build(GAN, spec, conditional=True, conditioning="auxiliary_classifier", auxiliary=1000.0)
    batch = Batch(torch.randn(64, 2, generator=torch.Generator().manual_seed(1)), label[:2].repeat(32, *(1,) * (label.ndim - 1)))

    def named():
        torch.manual_seed(3)
        return next(player for player in model.players() if player.name == name).loss(batch).terms["label"]

    player = free(model, name)
    before = named()
    torch.manual_seed(3)
    player.loss(batch).total.backward()
    with torch.no_grad():
        for _, parameter in player.parameters():
            parameter -= 1e-6 * parameter.grad
    assert float(named().detach()) < float(before.detach())


def test_settings_without_an_effect_are_refused():
    for fields in ({"conditioning": "concatenation"}, {"conditional": True, "auxiliary": 2.0}):
        with pytest.raises(UsageError, match="give --model"):
            GAN.Config(**fields)


def test_a_likelihood_without_attributes_is_mixed_over_those_seen():
    model = build(VAE, dataclasses.replace(PLANE, label=FLAGS), conditional=True, hidden=(8,), latent_dim=2).eval()
    model.condition.learn(torch.tensor([[0, 1], [0, 1], [0, 1], [1, 1]]))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    each = torch.stack([model.log_prob(x, label=torch.tensor([row] * 3)).nats for row in ([0, 1], [1, 1])])
    expected = torch.logsumexp(each + torch.tensor([[0.75], [0.25]]).log(), 0)
    torch.testing.assert_close(model.log_prob(x).nats, expected)


@pytest.mark.parametrize("way", WAYS)
def test_samples_follow_a_value(way):
    torch.manual_seed(0)
    age = 40 + 10 * torch.randn(2000, 1)
    # The age in standard scores is where the example lies.
    x = torch.cat(((age - 40) / 10, torch.zeros(2000, 1)), 1) + 0.1 * torch.randn(2000, 2)
    spec = dataclasses.replace(PLANE, label=Values(("age",), mean=(40.0,), std=(10.0,)))
    model = build(GAN, spec, conditional=True, conditioning=way, hidden=(32, 32), latent_dim=4).train()
    play(model, Batch(x, age), rounds=150, lr=4e-3, size=64)
    with torch.no_grad():
        low, high = (model.eval().sample(100, noise=Noise(0, 100), label=torch.full((100, 1), value)) for value in (30.0, 50.0))
    assert float(high[:, 0].mean() - low[:, 0].mean()) == pytest.approx(2.0, abs=0.8)


def play(model, batch, *, rounds, lr=2e-3, size=128):
    """So many rounds of all players, with a learning rate that falls to a tenth."""
    players = model.players()
    optimizers = [torch.optim.Adam([p for _, p in player.parameters()], lr=lr, betas=(0.0, 0.99)) for player in players]
    for i in range(rounds):
        for player, optimizer in zip(players, optimizers, strict=True):
            free(model, player.name)
            rows = torch.randint(len(batch.x), (size,))
            optimizer.param_groups[0]["lr"] = lr * (1 - 0.9 * i / rounds)
            player.loss(Batch(batch.x[rows], None if batch.label is None else batch.label[rows])).total.backward()
            optimizer.step()


# ------------------------------------------------------------------------------------------------------------- infogan


def ring(n):
    generator = torch.Generator().manual_seed(0)
    mode = torch.randint(8, (n,), generator=generator)
    angle = mode * math.pi / 4
    return math.sqrt(2) * torch.stack((angle.cos(), angle.sin()), 1) + 0.05 * torch.randn(n, 2, generator=generator), mode


def test_a_categorical_code_finds_the_modes():
    x, mode = ring(2000)
    model = build(InfoGAN, PLANE, categories=(8,), continuous=0, hidden=(64, 64), latent_dim=4).train()
    play(model, Batch(x), rounds=600, size=64)
    with torch.no_grad():
        model.progress.fill_(1.0)
        code = model.eval().encode(x).argmax(1)
        assert model.symptoms(Batch(x[:200])) == {}
    table = torch.zeros(8, 8).index_put_((code, mode), torch.ones(len(x)), accumulate=True)
    # Nearly every example of a value of the code is of one mode, and each mode has its value.
    assert float(table.max(1).values.sum()) / len(x) > 0.9
    assert len(set(table.argmax(1).tolist())) >= 7


def test_codes_that_nobody_reads_are_told():
    model = build(InfoGAN, PLANE).eval()
    assert model.symptoms(Batch(torch.randn(50, 2))) == {}, "too early to say"
    model.progress.fill_(1.0)
    assert "raise --model.information" in model.symptoms(Batch(torch.randn(50, 2)))["ignored codes"]


def test_the_bound_on_the_information():
    """A reader that knows the code reaches the entropy of a category; one that knows nothing has no nats of it."""
    codes = build(InfoGAN, PLANE, categories=(4,), continuous=1).codes
    code = codes.random(500, torch.device("cpu"))
    known = torch.cat((100 * code[:, :4], code[:, 4:], torch.full((500, 1), -100.0)), 1)
    told = codes.information(known, code).mean(0)
    assert told[0].item() == pytest.approx(math.log(4))
    assert told[1].item() > math.log(2)
    assert codes.information(torch.zeros(500, 6), code)[:, 0].mean().item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_both_players_raise_the_information(name):
    model, batch = build(InfoGAN, PLANE, information=1000.0), Batch(torch.randn(64, 2, generator=torch.Generator().manual_seed(1)))

    def told():
        torch.manual_seed(3)
        return player.loss(batch)

    player = free(model, name)
    before = told()
    before.total.backward()
    with torch.no_grad():
        for _, parameter in player.parameters():
            parameter -= 1e-6 * parameter.grad
    assert float(told().terms["information"].detach()) > float(before.terms["information"].detach())
    shared = [p.name for p in model.players() if any(q is next(model.reader.parameters()) for _, q in p.parameters())]
    assert shared == ["discriminator", "generator"]


def test_truncation_is_of_the_noise_beside_the_codes():
    model, seen = build(InfoGAN, PLANE).eval(), []
    output = model._output
    model._output = lambda code, noise: seen.append((code, noise)) or output(code, noise)
    for truncation in (None, 0.5):
        model.sample(200, noise=Noise(0, 200), truncation=truncation)
    (code, whole), (same, cut) = seen
    assert torch.equal(code, same)
    assert cut.abs().max() <= 0.5 < whole.abs().max()
    assert whole.std() == pytest.approx(1, abs=0.1)
    with pytest.raises(UsageError, match="above 0"):
        model.sample(2, noise=Noise(0, 2), truncation=0.0)


def test_the_distribution_of_codes_is_normalised_over_its_support():
    prior = build(InfoGAN, PLANE, categories=(2, 3), continuous=2).prior()
    inside = prior.log_prob(prior.sample((5, 7)))
    assert inside.shape == (5, 7)
    # 2 x 3 one-hot rows, each over a square of side 2.
    assert float(inside.exp().mean()) * 2 * 3 * 4 == pytest.approx(1)
    assert float(inside.std()) == 0
    code = prior.sample((4,))
    code[0, 0] = 0.5
    code[1, 2:5] = 1 / 3
    code[2, -1] = 1.01
    assert prior.log_prob(code).isfinite().tolist() == [False, False, False, True]


@pytest.mark.parametrize("far", [1.0, 3.0])
def test_a_prior_is_fitted_to_codes_that_are_numbers_alone(far, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "encode", lambda model, batch: far * batch.x.tanh())
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32))
    sizes = {"hidden": (8,), "categories": (), "continuous": 2, "latent_dim": 4}
    pofx.train("infogan", tmp_path / "x.npy", run=tmp_path / "run", steps=1, quiet=True, report=False, **sizes)
    found = fitting.fit(tmp_path / "run", "gmm")
    # Beyond [-1, 1] the model's own prior has no density to compare with.
    assert found.own == (pytest.approx(-2 * math.log(2)) if far == 1 else None)


def test_an_infogan_without_codes_is_refused():
    with pytest.raises(UsageError, match="needs codes"):
        InfoGAN.Config(categories=(1,), continuous=0)


# ---------------------------------------------------------------------------------------------------------------- data


def test_several_columns_of_a_table_are_one_label(tmp_path):
    pytest.importorskip("pandas")
    rows = [f"{i % 2},{i / 7:.3f},{(i // 2) % 2},{i % 5}" for i in range(40)]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["smiling,x,glasses,y", *rows]) + "\n")
    dataset = data.load(path, data.Options(label="glasses,smiling"))
    assert dataset.spec.label == Attributes(("smiling", "glasses"))
    batch = dataset.train.batch(torch.arange(5))
    dataset.codec.write(batch.x, tmp_path / "out.csv", batch.label)
    written = (tmp_path / "out.csv").read_text().splitlines()
    assert written[0] == "smiling,x,glasses,y"
    assert [[int(cell) for cell in (line.split(",")[0], line.split(",")[2])] for line in written[1:]] == batch.label.tolist()
    restored = type(dataset.codec).from_json({k: v for k, v in dataset.codec.to_json().items() if k != "name"})
    assert (restored.label_columns, restored.label_places) == (("smiling", "glasses"), (0, 1))
    with pytest.raises(UsageError, match="has no column 'hat'"):
        data.load(path, data.Options(label="smiling,hat"))


def test_values_carry_their_scale():
    label = torch.tensor([[10.0], [30.0], [NAN], [20.0]] * 10).numpy()
    dataset = data.from_arrays(torch.randn(40, 2).numpy(), label, data.Options(validation=0.0))
    known = dataset.train.batch(torch.arange(len(dataset.train))).label
    known = known[~known.isnan()].double()
    meaning = DataSpec.from_json(dataset.spec.to_json()).label
    assert meaning.mean == pytest.approx([known.mean().item()])
    assert meaning.std == pytest.approx([known.std(correction=0).item()])


def test_codes_are_fixed_by_name_and_all_else_stays():
    model = build(InfoGAN, PLANE, categories=(3, 2), continuous=1)
    code = model.codes.draw(Noise(0, 6))
    fixed = model.codes.fixed(code, {"c1": 1, "c2": -0.5})
    assert torch.equal(fixed[:, :3], code[:, :3])
    assert fixed[:, 3:].tolist() == [[0.0, 1.0, -0.5]] * 6
    free, same = model.sample(6, noise=Noise(0, 6)), model.sample(6, noise=Noise(0, 6), code={})
    assert torch.equal(free, same)
    assert not torch.equal(free, model.sample(6, noise=Noise(0, 6), code={"c2": 1.0}))
    for wrong, sentence in (({"c9": 1}, "the codes are c0 (0 to 2)"), ({"c0": 3}, "c0=3 is not possible"), ({"c2": 1.5}, "from -1 to 1")):
        with pytest.raises(UsageError) as raised:
            model.codes.fixed(code, wrong)
        assert sentence in str(raised.value)


def test_continuous_codes_weigh_less_than_categories():
    model = build(InfoGAN, PLANE, categories=(4,), continuous=2)
    loss = model.generator_loss(Batch(torch.randn(16, 2)))
    assert loss.weights["continuous_information"] > loss.weights["information"] == -1
    assert set(build(InfoGAN, PLANE, categories=(), continuous=1).generator_loss(Batch(torch.randn(16, 2))).terms) == {
        "adversarial", "continuous_information",
    }  # fmt: skip


def test_a_value_far_from_all_that_training_saw_is_told(capsys):
    model = build(GAN, DataSpec("vectors", (2,), label=Values(("age",)), size=50), conditional=True)
    model.condition.learn(torch.linspace(20, 79, 50)[:, None])
    assert asked.labels(model, "age=40", 2, 0).tolist() == [[40.0], [40.0]]
    assert capsys.readouterr().err == ""
    asked.labels(model, "age=400", 2, 0)
    assert "age=400 lies outside of what training has seen, 20 to 79" in capsys.readouterr().err


def test_the_figure_of_codes_changes_along_a_row_of_a_code(tmp_path):
    run = pofx.train("infogan", "digits", run=tmp_path / "run", steps=5, quiet=True, report=False, categories=(3,), continuous=1)
    model = pofx.load(run)
    assert figures.fits("codes", model)
    assert not figures.fits("codes", build(GAN, PLANE))
    figure = figures.draw("codes", model, run.dataset(), run=run)
    assert [text.get_text() for text in figure.axes[0].texts] == ["c0: 0 to 2"] * 3 + ["c1: -1 to 1"] * 3
