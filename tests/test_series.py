"""Series and their forecasts: parts in the order of time, windows that follow one another, intervals that hold what they promise."""

import csv
import math

import numpy as np
import pytest
import torch

import pofx
from pofx import data, figures, forecasting
from pofx.cli import main
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.data import Options, series
from pofx.models.autoregressive.rnn import RNN
from pofx.nn.gaussian_mixture import GaussianMixture
from pofx.stream import Stream

pd = pytest.importorskip("pandas", reason="tables need pandas")

DAYS = 400


@pytest.fixture
def table(tmp_path):
    """A table of days, not in their order, with a column of whole numbers, one of others and one of text."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "day": pd.date_range("2023-01-01", periods=DAYS).strftime("%Y-%m-%d"),
            "sold": random.poisson(20, DAYS),
            "price": np.sin(np.arange(DAYS) / 5) + 0.1 * random.standard_normal(DAYS),
            "who": ["a", "b"] * (DAYS // 2),
        }
    )
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "x.csv", index=False)
    return frame, tmp_path / "x.csv"


# --------------------------------------------------------------------------------------------------------------- data


def test_a_table_with_a_time_is_one_series_in_the_order_of_time(table):
    frame, path = table
    dataset = data.load(path, Options(time="day", window=20))
    assert dataset.spec == DataSpec("sequences", (20, 2), size=len(dataset.train))
    assert dataset.codec.names == ("sold", "price")
    steps = dataset.codec.show(data.everything(dataset).x)
    assert np.allclose(steps[0], frame[["sold", "price"]][:20])
    assert np.allclose(steps[-1], frame[["sold", "price"]][-20:])
    assert any("order of day" in note for note in dataset.notes)
    assert any("who" in note for note in dataset.notes)
    assert dataset.times[0] == np.datetime64("2023-01-01")
    assert len(dataset.times) == DAYS


def test_parts_are_split_in_time_and_no_window_reaches_into_another_part(table):
    dataset = data.load(table[1], Options(time="day", window=20))
    first = dict(zip(map(tuple, dataset.codec.standardised(table[0][["sold", "price"]].to_numpy()).tolist()), range(DAYS), strict=True))

    def reach(split):
        x = whole(split)
        return [first[tuple(row.tolist())] for row in x[:, 0]], [first[tuple(row.tolist())] for row in x[:, -1]]

    train, validation, test = (reach(part) for part in (dataset.train, dataset.validation, dataset.test))
    assert max(train[1]) == 319
    assert train[0] == list(range(301))
    assert (min(validation[0]), max(validation[1])) == (320, 359)
    assert (min(test[0]), max(test[1])) == (360, 399)
    # Windows that are measured on do not overlap.
    assert test[0] == [360, 380]
    # The scale is that of the training steps alone.
    assert np.allclose(dataset.codec.mean, table[0][["sold", "price"]][:320].mean())


def whole(split):
    return torch.cat([batch.x for batch in split.batches(64)])


def test_lanes_of_a_series_follow_one_another(table):
    dataset = data.load(table[1], Options(time="day", window=20))
    stream = Stream(dataset.train, name="model", size=4, window=None, seed=0, order="lanes")
    positions = [stream.positions(j) for j in range(20)]
    fresh = [stream.batch(j, device="cpu").fresh for j in range(20)]
    for before, now, anew in zip(positions, positions[1:], fresh[1:], strict=False):
        assert torch.equal(now[~anew], before[~anew] + 20)
        assert (now[anew] < 20).all()
    assert any(bool(anew.any()) for anew in fresh[1:])
    # Other models see every window of a pass once, in any order.
    shuffled = Stream(dataset.train, name="model", size=7, window=None, seed=0)
    assert sorted(torch.cat([shuffled.positions(j) for j in range(43)]).tolist()) == list(range(301))


@pytest.mark.parametrize("shape", [(300,), (300, 3)])
def test_an_array_is_one_series_where_a_window_is_asked_for(tmp_path, shape):
    array = np.random.default_rng(0).integers(-5, 50, shape)
    np.save(tmp_path / "x.npy", array)
    dataset = data.load(tmp_path / "x.npy", Options(kind="sequences", window=30))
    assert dataset.spec.shape == (30, array.size // 300)
    split = data.everything(dataset)
    assert np.array_equal(dataset.codec.show(split.batch(torch.tensor([0])).x)[0], array[:30].reshape(30, -1))
    dataset.codec.write(split.x[:2], tmp_path / "y.npy")
    assert np.array_equal(np.load(tmp_path / "y.npy")[1], array[1:31].reshape(30, -1))
    again = data.load(tmp_path / "x.npy", codec=data.codec_from_json(dataset.codec.to_json()))
    assert torch.equal(again.train.x, dataset.train.x)


def test_a_series_is_written_with_its_names(table, tmp_path):
    dataset = data.load(table[1], Options(time="day", window=20))
    dataset.codec.write(dataset.train.x[:3], tmp_path / "y.csv")
    with (tmp_path / "y.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["sequence", "step", "sold", "price"]
    assert len(lines) == 60
    assert [line[:2] for line in lines[19:21]] == [["0", "19"], ["1", "0"]]
    assert [int(line[2]) for line in lines[:20]] == table[0]["sold"][:20].tolist()


def test_densities_of_a_series_are_those_of_its_units():
    steps = np.random.default_rng(0).normal(3, [0.5, 40], (300, 2))
    dataset = data.from_arrays(steps, options=Options(kind="sequences", window=10))
    jacobian = torch.func.jacrev(lambda x: (x - torch.tensor(dataset.codec.mean)) / torch.tensor(dataset.codec.std))(torch.randn(10, 2))
    assert dataset.codec.log_jacobian() == pytest.approx(float(torch.linalg.slogdet(jacobian.reshape(20, 20))[1]), rel=1e-5)


def test_what_cannot_be_a_series_is_refused_in_a_sentence(table, tmp_path):
    frame, path = table
    for change, word in (
        (lambda f: f.assign(price=f.price.where(f.index != 7)), "empty cell in column price"),
        (lambda f: f.assign(day=f.day.where(f.index != 7, f.day[8])), "twice"),
        (lambda f: f[["day", "who"]], "no column of numbers"),
        (lambda f: f.assign(day="monday"), "neither numbers nor dates"),
    ):
        change(frame).to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(UsageError, match=word):
            data.load(tmp_path / "bad.csv", Options(time="day"))
    frame.assign(price=frame.price.where(frame.index != 7)).to_csv(tmp_path / "gap.csv", index=False)
    gap = data.load(tmp_path / "gap.csv", Options(time="day", window=20, missing="drop"))
    assert len(gap.times) == DAYS - 1
    assert any("not even" in note for note in gap.notes)
    for options, word in (
        (Options(time="month"), "no column 'month'"),
        (Options(time="day", window=350), "smaller --data.window"),
        (Options(time="day", kind="images"), "sequences"),
        (Options(kind="sequences"), "--data.time"),
        (Options(time="day", label="who"), "label"),
    ):
        with pytest.raises(UsageError, match=word):
            data.load(path, options)
    for source, options in (("oscillator", Options(time="day")), ("digits", Options(window=4))):
        with pytest.raises(UsageError, match="no meaning"):
            data.load(source, options)
    with pytest.raises(UsageError, match=r"leave --data\.window out"):
        data.load(path, Options(window=10), codec=gap.codec)


def test_the_oscillator_is_a_function_of_the_seed_and_swings():
    one, same, other = (data.load("oscillator", Options(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.train.x, same.train.x)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(one.train.x, other.train.x)
    steps = one.codec.show(one.train.x[:, 0])[:, 0]
    # A van der Pol oscillator of stiffness 1 has a period of 6.66, here 33 steps, and an amplitude of 2.
    crossings = int(((steps[1:] > 0) & (steps[:-1] <= 0)).sum())
    assert len(steps) / crossings == pytest.approx(6.66 / series.BETWEEN, rel=0.1)
    assert np.quantile(np.abs(steps), 0.95) == pytest.approx(2, rel=0.15)


# ------------------------------------------------------------------------------------------------------------ mixture


def test_a_mixture_is_conditioned_exactly_on_the_features_that_are_known():
    mixture, count = GaussianMixture(2, 3), 20_000
    output = torch.randn(1, mixture.outputs, generator=torch.Generator().manual_seed(0)).double()
    before, known = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor([[0.0, 0.7]], dtype=torch.float64)
    mask = torch.tensor([[False, True]])

    def many(x):
        return x.expand(count, -1)

    drawn = mixture.draw(many(output), many(before), many(known), many(mask), noise=Noise(0, count))
    assert (drawn[:, 1] == 0.7).all()
    # p(x0 | x1) on a grid, from the joint density alone.
    side = torch.linspace(-8, 8, 4001).double()
    joint = mixture.distribution(output, before).log_prob(torch.stack((side, torch.full_like(side, 0.7)), 1)).exp()
    weights = joint / joint.sum()
    mean = (weights * side).sum()
    variance = (weights * (side - mean) ** 2).sum()
    assert float(drawn[:, 0].mean()) == pytest.approx(float(mean), abs=4 * math.sqrt(float(variance) / count))
    # And the whole distribution: Kolmogorov's distance exceeds 1.95 / sqrt(n) once in a thousand times.
    below = torch.searchsorted(drawn[:, 0].sort().values, side, right=True) / count
    assert float((weights.cumsum(0) - below).abs().max()) < 1.95 / math.sqrt(count) + float(weights.max())


def test_temperature_scales_the_variance_of_a_single_gaussian():
    mixture = GaussianMixture(1, 1)
    output, before = torch.randn(1, mixture.outputs), torch.zeros(1, 1)
    hot, plain = (mixture.distribution(output, before, t).variance for t in (4.0, 1.0))
    torch.testing.assert_close(hot, 4 * plain)


def test_two_ways_on_are_learned_as_two():
    """Steps are -1 or 1 with a little noise: no single Gaussian gets below 1.42 nats, the truth has -0.19."""
    torch.manual_seed(0)
    model = RNN(DataSpec("sequences", (8, 1), size=1000), RNN.Config(width=16, depth=1, components=4)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        x = torch.randint(2, (64, 8, 1)) * 2.0 - 1 + 0.1 * torch.randn(64, 8, 1)
        optimizer.zero_grad()
        loss = model.loss(Batch(x)).total / 8
        loss.backward()
        optimizer.step()
    assert -0.25 < float(loss.detach()) < 0.5


# ---------------------------------------------------------------------------------------------------------- forecasts


def walks(n, time, a=0.8, seed=0):
    """Stationary AR(1) sequences: x_t = a x_{t-1} + e."""
    random = np.random.default_rng(seed)
    x = np.empty((n, time, 1))
    x[:, 0] = random.standard_normal((n, 1)) / math.sqrt(1 - a * a)
    for t in range(1, time):
        x[:, t] = a * x[:, t - 1] + random.standard_normal((n, 1))
    return x


def test_the_score_of_draws_is_that_of_their_distribution():
    random = np.random.default_rng(0)
    drawn, x = random.standard_normal((4000, 50)), np.linspace(-3, 3, 50)
    exact = x * (2 * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) - 1)
    exact += 2 * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    assert np.allclose(forecasting.crps(drawn, x), exact, atol=0.06)
    # Without bias: three draws give the same in the mean.
    few = np.mean([forecasting.crps(random.standard_normal((3, 50)), x) for _ in range(4000)], 0)
    assert np.allclose(few, exact, atol=0.06)
    assert np.allclose(forecasting.crps(np.full((5, 2), 1.5), np.array([1.0, 2.0])), 0.5)


def test_intervals_of_true_futures_hold_what_they_promise():
    random = np.random.default_rng(0)
    for draws in (20, 200):
        drawn, x = random.standard_normal((draws, 20_000)), random.standard_normal(20_000)
        for share in (0.5, 0.9):
            low, high = forecasting.interval(drawn, share)
            assert float(((low <= x) & (x <= high)).mean()) == pytest.approx(share, abs=0.02)


def test_the_linear_forecast_finds_what_is_linear():
    a, horizon = 0.8, 5
    x = walks(20_000, 12, a)
    linear, naive = forecasting.Linear(x, horizon), forecasting.Naive(x, horizon)
    past = walks(500, 12 - horizon, a, seed=1)
    steps = np.arange(1, horizon + 1)
    assert np.allclose(linear.mean(past)[..., 0], past[:, -1] * a**steps, atol=0.1)
    # Variances of what is left: of the best forecast, and of the difference of two steps.
    assert np.allclose(linear.spread[:, 0] ** 2, (1 - a ** (2 * steps)) / (1 - a * a), rtol=0.05)
    assert np.allclose(naive.spread[:, 0] ** 2, 2 * (1 - a**steps) / (1 - a * a), rtol=0.05)
    held = walks(20_000, 12, a, seed=2)
    past, future = held[:, :-horizon], held[:, -horizon:]
    assert linear.crps(past, future).mean() < naive.crps(past, future).mean()
    for share in (0.5, 0.9):
        low, high = linear.interval(past, share)
        assert float(((low <= future) & (future <= high)).mean()) == pytest.approx(share, abs=0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of a table of hours, trained for a moment."""
    folder = tmp_path_factory.mktemp("series")
    times = pd.date_range("2024-02-28 20:00", periods=600, freq="h")
    values = np.sin(np.arange(600) / 4) + 0.1 * np.random.default_rng(0).standard_normal(600)
    pd.DataFrame({"hour": times, "load": 100 + 20 * values}).to_csv(folder / "x.csv", index=False)
    options = Options(time="hour", window=16)
    dataset = data.load(folder / "x.csv", options)
    return pofx.train("rnn", dataset, run=folder / "run", steps=200, quiet=True, report=False, width=16, depth=1, components=2)


@torch.no_grad()
def test_futures_are_a_function_of_the_seed_and_follow_the_models_own_distribution(run):
    model = pofx.load(run)
    x = torch.randn(3, 10, 1)
    drawn = forecasting.futures(model, x, 4, draws=400)
    assert drawn.shape == (400, 3, 4, 1)
    assert np.array_equal(drawn, forecasting.futures(model, x, 4, draws=400))
    # One step ahead the draws are those of the mixture after the past.
    (said,) = [said for said in model.outputs(torch.cat((x, x[:, :1]), 1)) if said[2].shape[1] == 11]
    exact = model.mixture.distribution(said[0], said[1][..., :-1])
    mean, spread = exact.mean[:, -1, 0].numpy(), exact.stddev[:, -1, 0].numpy()
    assert np.allclose(drawn[:, :, 0, 0].mean(0), mean, atol=5 * spread.max() / math.sqrt(400))
    assert np.allclose(drawn[:, :, 0, 0].std(0), spread, rtol=0.3)


def test_a_trained_model_beats_the_naive_forecast_in_the_report_and_figure(run):
    report = pofx.evaluate(run)
    rows = {row.name: row for row in report.rows if row.about == "forecasts"}
    assert list(rows) == ["CRPS of forecasts", "absolute error of forecasts", "coverage of 90% intervals"]
    score = rows["CRPS of forecasts"]
    assert score.model < score.baselines["naive"]
    assert set(score.baselines) == {"naive", "linear"}
    assert 0 <= rows["coverage of 90% intervals"].model <= 1
    figure = figures.draw("forecast", pofx.load(run), run.dataset(), run=run)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert [title.partition(":")[0] for title in titles] == ["rnn", "linear", "naive"]


def test_the_verb_goes_on_where_the_series_ends(run, tmp_path, capsys):
    assert main(["forecast", str(run.path), "--horizon", "30", "--n", "50", "--out", str(tmp_path / "f.csv")]) == 0
    with (tmp_path / "f.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["step", "hour", "load 5%", "load 25%", "load 50%", "load 75%", "load 95%"]
    assert [line[0] for line in lines] == [str(step) for step in range(1, 31)]
    assert [line[1] for line in lines[:2]] == ["2024-03-24T20:00:00", "2024-03-24T21:00:00"]
    values = np.array([line[2:] for line in lines], dtype=float)
    assert (np.diff(values, axis=1) >= 0).all()
    # In units of the source.
    assert (np.abs(values - 100) < 60).all()
    assert main(["forecast", str(run.path), "--out", str(tmp_path / "f.npz"), "--n", "5"]) == 0
    with np.load(tmp_path / "f.npz") as file:
        assert file["x"].shape == (5, 1, 4, 1)
    capsys.readouterr()
    assert main(["sample", str(run.path), "--prompt", "100"]) == 2
    assert "pofx forecast" in capsys.readouterr().err
    for flags, word in ((["--n", "1"], "--n"), (["--horizon", "0"], "--horizon"), (["--out", "x.png"], "csv")):
        assert main(["forecast", str(run.path), *flags]) == 2
        assert word in capsys.readouterr().err


def test_another_file_is_read_as_the_run_reads_its_own(run, tmp_path):
    times = pd.date_range("2025-01-01", periods=60, freq="h")
    for rows in (16, 60):
        pd.DataFrame({"load": 100.0 + np.arange(rows), "hour": times[:rows]}).to_csv(tmp_path / "y.csv", index=False)
        assert len(data.everything(run.dataset(tmp_path / "y.csv"))) == rows - 15
    other = run.dataset(tmp_path / "y.csv")
    assert other.codec == run.codec
    assert np.allclose(other.codec.show(data.everything(other).x[-1])[:, 0], 100 + np.arange(44, 60), atol=1e-4)
