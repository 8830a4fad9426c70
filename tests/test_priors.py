"""Priors fitted to codes: densities against oracles, the laws of noise, what is kept, who uses it, what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal

import pofx
from pofx import checkpoint, discovery, evaluate, examples, fitting, priors
from pofx.cli import main
from pofx.core import Noise, UsageError
from pofx.priors import flow, gmm, knn
from pofx.progress import Steps
from pofx.run import Run

KINDS = discovery.names("priors")


def fit(kind, y, held, **knobs):
    with Steps(1, quiet=True) as steps:
        return discovery.load("priors", kind).Prior.fit(y, held, seed=0, steps=steps, **knobs)


def two_clusters(n, seed, features=2):
    """Codes around +-2 on the first axis."""
    random = np.random.default_rng(seed)
    y = 0.2 * random.standard_normal((n, features))
    y[:, 0] += 2 * random.choice([-1, 1], n)
    return torch.from_numpy(y)


@pytest.fixture(scope="module", autouse=True)
def _short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "MOVES", 120)
        patch.setattr(flow, "LOOK", 40)
        patch.setattr(flow, "BATCH", 64)
        patch.setattr(flow, "TRANSFORMS", 2)
        patch.setattr(flow, "HIDDEN", (32,))
        patch.setattr(flow, "RATE", 1e-2)
        patch.setattr(knn, "CHOOSING", 50)
        yield


@pytest.fixture(scope="module", params=KINDS)
def clusters(request):
    """A density of each kind on two clusters."""
    return fit(request.param, two_clusters(400, 0), two_clusters(100, 1))


# ---------------------------------------------------------------------------------------------------------- densities


def test_there_are_the_kinds_that_were_promised():
    assert {"gmm", "flow", "knn"} <= set(KINDS)


def test_a_density_is_likelier_than_one_gaussian_and_draws_where_codes_are(clusters):
    unseen = two_clusters(500, 2)
    gaussian = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.cov(two_clusters(400, 0).T))
    assert float(clusters.log_prob(unseen).mean()) > float(gaussian.log_prob(unseen).mean()) + 0.2
    drawn = clusters.draw(Noise(0, 500))
    near = (drawn[:, 0].abs() - 2).abs() < 0.8
    # The Gaussian has a third of its mass there.
    assert float(near.double().mean()) > 0.8
    assert 0.35 < float((drawn[:, 0] > 0).double().mean()) < 0.65


def test_rows_do_not_depend_on_how_many_are_drawn(clusters):
    drawn = clusters.draw(Noise(3, 7))
    parts = torch.cat([clusters.draw(Noise(3, k, first=first)) for first, k in ((0, 1), (1, 4), (5, 2))])
    torch.testing.assert_close(drawn, parts, rtol=0, atol=1e-9)
    assert not torch.equal(drawn, clusters.draw(Noise(4, 7)))


def test_a_restored_density_is_the_same(clusters):
    settings, tensors = clusters.state()
    again = type(clusters).restore(json.loads(json.dumps(settings)), tensors)
    assert torch.equal(again.draw(Noise(0, 9)), clusters.draw(Noise(0, 9)))
    unseen = two_clusters(20, 3)
    assert torch.equal(again.log_prob(unseen), clusters.log_prob(unseen))
    assert again.describe() == clusters.describe()


def test_a_lower_temperature_draws_nearer_together(clusters):
    centre, near, far = (clusters.draw(Noise(0, 200), temperature=t) for t in (0.0, 0.5, 1.0))
    assert 0 < float((near - centre).norm(dim=1).mean()) < float((far - centre).norm(dim=1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_densities_and_leave_the_global_generator_alone(kind):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again = (fit(kind, two_clusters(60, 0), two_clusters(20, 1)) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    for name, value in first.state()[1].items():
        assert torch.equal(value, again.state()[1][name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [1, 70])
def test_codes_of_one_and_of_many_numbers(kind, features):
    density = fit(kind, two_clusters(80, 0, features), two_clusters(20, 1, features))
    assert density.draw(Noise(0, 3)).shape == (3, features)
    assert density.log_prob(two_clusters(5, 2, features)).isfinite().all()


@pytest.mark.parametrize("features", [3, 70])
def test_the_density_of_a_mixture_is_that_of_scikit_learn(features):
    y = two_clusters(300, 0, features)
    density = fit("gmm", y, y, components=3)
    oracle = GaussianMixture(3, covariance_type="full" if features == 3 else "diag")
    oracle.weights_, oracle.means_ = density.weights.numpy(), density.means.numpy()
    precise = torch.linalg.inv(density.factors).mT if features == 3 else 1 / density.factors
    oracle.precisions_cholesky_ = precise.numpy()
    np.testing.assert_allclose(density.log_prob(y).numpy(), oracle.score_samples(y.numpy()), atol=1e-8)


def test_draws_of_a_mixture_have_its_moments():
    factor = torch.tensor([[[1.0, 0.0], [0.9, 0.3]]], dtype=torch.float64)
    density = gmm.Prior(torch.ones(1), torch.tensor([[3.0, -1.0]], dtype=torch.float64), factor)
    drawn = density.draw(Noise(0, 4000))
    torch.testing.assert_close(drawn.mean(0), density.means[0], rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cov(drawn.T), factor[0] @ factor[0].T, rtol=0, atol=0.1)


def test_held_out_codes_choose_the_number_of_components():
    assert len(fit("gmm", two_clusters(400, 0), two_clusters(200, 1)).weights) >= 2
    normal = torch.from_numpy(np.random.default_rng(0).standard_normal((400, 2)))
    assert len(fit("gmm", normal[:300], normal[300:]).weights) <= 2


@pytest.mark.parametrize("k", [2, 4])
def test_the_density_of_kernels_is_the_mixture_of_their_gaussians(k):
    y = two_clusters(30, 0, 3)  # fewer than the kernels that are summed, so that the bound is exact
    density = fit("knn", y, two_clusters(20, 1, 3), neighbours=k)
    codes, rows = density.codes, density.rows.long()
    kernels = []
    for code, row in zip(codes, rows, strict=True):
        steps = codes[row] - code
        width = max(density.width * float((steps.square().sum() / k / 3).sqrt()), knn.LEAST)
        kernels.append(MultivariateNormal(code, steps.T @ steps / k + width**2 * torch.eye(3)))
    unseen = two_clusters(10, 2, 3)
    expected = torch.stack([kernel.log_prob(unseen) for kernel in kernels]).logsumexp(0) - np.log(30)
    torch.testing.assert_close(density.log_prob(unseen), expected)


def test_a_kernel_of_no_temperature_is_a_training_code():
    density = fit("knn", two_clusters(30, 0, 3), two_clusters(20, 1, 3))
    drawn = density.draw(Noise(0, 5), temperature=0.0)
    assert torch.equal(
        torch.cdist(drawn, density.codes, compute_mode="donot_use_mm_for_euclid_dist").min(1).values, torch.zeros(5).double()
    )


def test_draws_of_a_kernel_have_its_covariance():
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    density = knn.Prior(codes, torch.tensor([[1], [0]], dtype=torch.int32), 0.5)
    drawn = density.draw(Noise(0, 6000))
    # One step of length 1 along the first axis, s^2 = 0.5^2 / 2 along both, and the centres 0 and 1, whose variance is 1/4.
    expected = torch.diag(torch.tensor([1 + 0.125 + 0.25, 0.125], dtype=torch.float64))
    torch.testing.assert_close(torch.cov(drawn.T), expected, rtol=0, atol=0.1)


def test_the_density_of_a_flow_integrates_to_one():
    density = fit("flow", two_clusters(400, 0, 1), two_clusters(100, 1, 1))
    grid = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    assert float(torch.trapezoid(density.log_prob(grid[:, None]).exp(), grid)) == pytest.approx(1, abs=1e-3)


def test_the_best_look_of_a_flow_is_kept(monkeypatch):
    y, held = two_clusters(200, 0), two_clusters(50, 1)
    monkeypatch.setattr(flow, "RATE", 0.3)  # so high that it gets worse again and again
    density = fit("flow", y, held)
    monkeypatch.setattr(flow, "MOVES", 50)
    early = fit("flow", y, held)
    assert float(density.log_prob(held).mean()) >= float(early.log_prob(held).mean()) - 1e-3


def test_duplicates_do_not_break_kernels():
    y = torch.zeros(50, 2, dtype=torch.float64)
    y[:3] = 1
    density = fit("knn", y, y[:10])
    assert density.log_prob(y).isfinite().all()
    assert density.draw(Noise(0, 5)).isfinite().all()


# ---------------------------------------------------------------------------------------------------------- in a run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of an autoencoder on points; nobody writes into it."""
    folder = tmp_path_factory.mktemp("run")
    np.save(folder / "x.npy", two_clusters(300, 0, 5).numpy().astype(np.float32))
    pofx.train("autoencoder", folder / "x.npy", run=folder / "run", steps=20, latent_dim=2, hidden=(8,), quiet=True, report=False)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def drawn(run, **which):
    return examples.draw(pofx.load(run, **which), 10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_prior_is_used_from_then_on(kind, run):
    before = drawn(run)
    found = fitting.fit(run, kind)
    model = pofx.load(run)
    assert model.fitted.name == found.prior.name
    assert torch.equal(model.fitted.draw(Noise(0, 20)), found.prior.draw(Noise(0, 20)))
    assert not torch.equal(drawn(run), before)
    assert torch.equal(drawn(run, prior="own"), before)
    assert torch.equal(drawn(run, prior=kind), drawn(run))
    assert np.isfinite([found.nats, found.gaussian, found.own]).all()
    assert found.part == "validation"


def test_nothing_is_pickled_and_the_model_is_not_touched(run):
    before = checkpoint.hash_of(checkpoint.folder(run / "checkpoints", Run.open(run).step))
    state = pofx.load(run).state_dict()
    fitting.fit(run, "gmm")
    assert {path.name for path in (run / "priors" / "gmm").iterdir()} == {"config.json", "prior.safetensors", "manifest.json"}
    after = pofx.load(run).state_dict()
    assert set(after) == set(state)
    assert checkpoint.hash_of(checkpoint.folder(run / "checkpoints", Run.open(run).step)) == before


def test_the_newest_is_used_and_a_name_chooses(run, capsys):
    fitting.fit(run, "gmm", components=1)
    fitting.fit(run, "knn")
    assert priors.in_use(pofx.load(run)).startswith("knn ")
    fitting.fit(run, "gmm", name="pair", components=2)
    fitting.fit(run, "gmm", components=3)
    assert len(pofx.load(run).fitted.density.weights) == 3
    assert len(pofx.load(run, prior="pair").fitted.density.weights) == 2
    assert main(["sample", str(run), "--prior", "pair"]) == 0
    assert capsys.readouterr().out.strip().endswith("-pair.csv")
    assert main(["sample", str(run), "--prior", "own"]) == 0
    assert capsys.readouterr().out.strip().endswith("-seed0.csv")


def test_equal_seeds_give_equal_files(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    for folder in (run, other):
        fitting.fit(folder, "gmm", seed=3)
    files = [folder / "priors" / "gmm" / "prior.safetensors" for folder in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_prior_of_another_checkpoint_is_not_used_and_said_so(run, capsys):
    fitting.fit(run, "gmm")
    old = Run.open(run).step
    assert main(["train", "--run", str(run), "--resume", "--steps", "22", "--quiet"]) == 0
    capsys.readouterr()
    assert Run.open(f"{run}@last").step == 22 != old
    assert priors.in_use(pofx.load(f"{run}@{old}")).startswith("gmm ")
    model = pofx.load(f"{run}@last")
    assert model.fitted is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "other checkpoints" in err
    assert str(old) in refused(capsys, "sample", f"{run}@last", "--prior", "gmm")


@pytest.mark.parametrize("file", ["config.json", "prior.safetensors", "manifest.json"])
def test_a_damaged_prior_is_told_and_the_run_still_loads(file, run, capsys):
    fitting.fit(run, "gmm")
    path = run / "priors" / "gmm" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert pofx.load(run).fitted is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert file in err
    assert "pofx fit-prior" in err
    assert "--prior own" in refused(capsys, "sample", run, "--prior", "gmm")
    # Fitting it again mends it.
    fitting.fit(run, "gmm")
    assert pofx.load(run).fitted is not None


def test_a_prior_of_another_version_is_told(run, capsys):
    fitting.fit(run, "gmm")
    folder = run / "priors" / "gmm"
    description = json.loads((folder / "config.json").read_text()) | {"kind": "nonsense"}
    tensors = (folder / "prior.safetensors").read_bytes()
    checkpoint.save_folder(folder, [("config.json", checkpoint.to_json(description)), ("prior.safetensors", tensors)])
    assert pofx.load(run).fitted is None
    assert "another version" in capsys.readouterr().err


def test_an_evaluation_says_which_prior_it_measured(run):
    own = evaluate(run)
    assert own.prior == ""
    fitting.fit(run, "gmm")
    found = evaluate(run)
    assert found.prior == priors.newest(Run.open(run))
    assert "gmm" in found.heading
    assert type(found).from_json(found.to_json()) == found


def test_the_verb_prints_one_line(run, capsys):
    assert main(["fit-prior", str(run), "--kind", "gmm", "--components", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "2 Gaussians" in out
    assert "one Gaussian" in out


def test_a_makeshift_prior_is_told_until_another_is_fitted(run, capsys):
    assert main(["sample", str(run), "--n", "1"]) == 0
    assert "pofx fit-prior" in capsys.readouterr().err
    assert main(["sample", str(run), "--n", "1", "--prior", "own"]) == 0
    assert "pofx fit-prior" not in capsys.readouterr().err
    fitting.fit(run, "gmm")
    assert main(["sample", str(run), "--n", "1"]) == 0
    assert "pofx fit-prior" not in capsys.readouterr().err


def test_directions_without_codes_get_none(run, monkeypatch):
    encode = examples.encode
    monkeypatch.setattr(examples, "encode", lambda model, batch: encode(model, batch) * torch.tensor([1.0, 0.0]) + 2)
    for kind in KINDS:
        found = fitting.fit(run, kind)
        assert found.own is None
        assert np.isfinite(found.nats)
        torch.testing.assert_close(found.prior.draw(Noise(0, 50))[:, 1], torch.full((50,), 2.0))


def test_codes_of_rows_without_their_label_are_left_out(tmp_path, monkeypatch):
    label = np.array(["a", "b", ""] * 100)
    np.savez(tmp_path / "x.npz", x=two_clusters(300, 0, 4).numpy().astype(np.float32), label=label)
    pofx.train("vae", tmp_path / "x.npz", run=tmp_path / "run", steps=2, conditional=True, hidden=(8,), quiet=True, report=False)
    run = Run.open(tmp_path / "run")
    labels = run.dataset().train.label
    assert bool((labels < 0).any()) or len(run.info["data"]["spec"]["label"]["names"]) == 3
    found = fitting.fit(run, "gmm")
    description = json.loads((tmp_path / "run" / "priors" / "gmm" / "config.json").read_text())
    known = int((run.dataset().train.batch(torch.arange(len(run.dataset().train))).label >= 0).sum())
    assert description["codes"] == known - known // fitting.CHOOSES
    model = pofx.load(run)
    one = model.sample(6, noise=Noise(0, 6), label=torch.zeros(6, dtype=torch.int64), mode="mean")
    other = model.sample(6, noise=Noise(0, 6), label=torch.ones(6, dtype=torch.int64), mode="mean")
    assert not torch.equal(one, other)
    assert found.part == "validation"


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_cannot_be_done_is_said_in_one_sentence(run, capsys, tmp_path):
    assert "gmm" in refused(capsys, "fit-prior", run, "--kind", "gmn")
    assert "--components" in refused(capsys, "fit-prior", run, "--kind", "knn", "--components", 3)
    assert "--neighbours" in refused(capsys, "fit-prior", run, "--kind", "gmm", "--neighbours", 3)
    assert "--components" in refused(capsys, "fit-prior", run, "--kind", "gmm", "--components", 0)
    assert "take fewer" in refused(capsys, "fit-prior", run, "--kind", "gmm", "--components", 1000)
    assert "--neighbours" in refused(capsys, "fit-prior", run, "--kind", "knn", "--neighbours", 1000)
    for name in ("own", "../x", "", ".hidden"):
        assert "cannot be called" in refused(capsys, "fit-prior", run, "--kind", "gmm", "--name", name)
    assert "fit-prior" in refused(capsys, "sample", run, "--prior", "gmm")
    assert not (run / "priors").exists()


def test_a_model_without_codes_is_refused(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((40, 2), np.float32) + np.arange(40)[:, None])
    pofx.train("gan", tmp_path / "x.npy", run=tmp_path / "run", steps=1, hidden=(8,), quiet=True, report=False)
    assert "maps data to codes" in refused(capsys, "fit-prior", tmp_path / "run", "--kind", "gmm")
    assert "fit-prior" in refused(capsys, "sample", tmp_path / "run", "--prior", "gmm")


def test_codes_that_no_density_fits_are_refused(run, monkeypatch):
    encode = examples.encode
    monkeypatch.setattr(examples, "encode", lambda model, batch: encode(model, batch) * torch.nan)
    with pytest.raises(UsageError, match="not finite"):
        fitting.fit(run, "gmm")
    monkeypatch.setattr(examples, "encode", lambda model, batch: encode(model, batch) * 0 + 3)
    with pytest.raises(UsageError, match="equal"):
        fitting.fit(run, "gmm")
    monkeypatch.setattr(examples, "encode", encode)
    monkeypatch.setattr(fitting, "CODES", fitting.LEAST - 1)
    with pytest.raises(UsageError, match="too few"):
        fitting.fit(run, "gmm")
