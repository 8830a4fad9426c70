"""The health monitor: signals that mean what they say, detectors that name what is wrong, training that goes back where it diverges."""

import dataclasses
import json
import math
import pathlib

import pytest
import torch

import pofx
from pofx import core, data, discovery, features, figures, health, vitals
from pofx.core import Noise, Optimizer
from pofx.data.dataset import Split
from pofx.figures.health import judged
from pofx.models.adversarial.gan import GAN
from pofx.progress import Display
from pofx.settings import Settings
from pofx.trainer import Trainer
from pofx.vitals import SIGNALS, Fixed

HERE = pathlib.Path(__file__).parent
#: A game in which nothing is wrong.
FINE = {
    "real_logit": 0.02, "held_logit": 0.01, "fake_logit": -0.02, "spread": 0.05, "told": 0.7, "told_held": 0.69, "seen": 0.52, "seen_error": 0.02,
    "judge_gradient": 0.2, "maker_gradient": 0.1, "diversity": 0.98, "duplicates": 0.01, "coverage": 0.7, "neighbours": 0.8,
    "distance": 0.1, "copies": 0.005,
}  # fmt: skip
#: Failure -> how its last looks differ.
SICK = {
    health.WINS: {"told": 0.995, "distance": 2.0, "neighbours": 1.0},
    health.OVERFITS: {"seen": 0.8, "real_logit": 1.0, "held_logit": 0.0, "fake_logit": -0.5},
    health.DEAD: {"told": 0.5, "neighbours": 1.0},
    health.DIVERGES: {"real_logit": 1e4},
    health.COLLAPSES: {"duplicates": 1.0, "diversity": 0.0, "coverage": 0.01},
    health.COPIES: {"copies": 0.6},
}  # fmt: skip


def looks(n, **changes):
    """n looks of which all are fine up to the middle, and the others have `changes`."""
    return [{"step": 100.0 * i, "progress": (i + 1) / n, **FINE, **(changes if i >= n // 2 else {})} for i in range(n)]


def test_what_is_fine_has_no_name():
    assert health.diagnose([]) == {}
    assert health.diagnose(looks(1)) == {}
    assert health.diagnose(looks(20)) == {}


@pytest.mark.parametrize("name", SICK)
def test_each_failure_has_its_name_its_numbers_and_an_advice(name):
    found = health.diagnose(looks(20, **SICK[name]))
    assert name in found
    assert any(character.isdigit() for character in found[name])
    seen, _, advice = found[name].rpartition(": ")
    assert seen
    assert advice
    assert ". " not in found[name], "one sentence"


@pytest.mark.parametrize("name", [name for name in SICK if name != health.DIVERGES])
def test_a_single_look_and_a_young_game_are_no_evidence(name):
    records = looks(20)
    records[-1] |= SICK[name]
    assert health.diagnose(records) == {}
    young = [{**record, "progress": 0.1} for record in looks(20, **SICK[name])]
    assert health.diagnose(young) == {}


def test_oscillation_is_a_distance_that_was_better():
    assert list(health.diagnose(looks(20, distance=0.5, coverage=0.6))) == [health.OSCILLATES]
    # The first two moments of the samples may be those of the data by chance: of an untrained game, or where the samples cover more since.
    chance = [{**record, "distance": 0.001 if i < 2 else 0.5, "coverage": 0.7 if i < 2 else 0.6} for i, record in enumerate(looks(20))]
    assert health.diagnose(chance) == {}
    assert health.diagnose(looks(20, distance=0.5, coverage=0.9)) == {}
    falling = [{**record, "distance": 1 / (i + 1)} for i, record in enumerate(looks(20))]
    assert health.diagnose(falling) == {}


def test_a_generator_that_still_comes_nearer_is_not_lost():
    lost = {"told": 1.0, "neighbours": 1.0, "coverage": 0.85}
    fast = [{**record, **lost, "distance": 0.7**i} for i, record in enumerate(looks(20))]
    assert health.diagnose(fast) == {}
    # Of a long game three looks say little: 10 % nearer within them, 40 % since it was half as old.
    slow = [{**record, **lost, "distance": 0.95**i} for i, record in enumerate(looks(20))]
    assert health.diagnose(slow) == {}
    assert list(health.diagnose([{**record, **lost, "distance": 0.99**i} for i, record in enumerate(looks(20))])) == [health.WINS]


def test_a_sharp_discriminator_of_good_samples_has_not_won():
    assert list(health.diagnose(looks(20, told=0.99, distance=0.1, neighbours=0.95))) == [health.WINS]
    assert health.diagnose(looks(20, told=0.99, distance=0.1, neighbours=0.6)) == {}


def test_a_discriminator_far_ahead_has_won_if_coverage_stays_low():
    ahead = {"told": 0.9, "coverage": 0.6, "distance": 0.05}
    found = health.diagnose([{**record, **ahead} for record in looks(20)])
    assert list(found) == [health.WINS]
    assert "stays near 60%" in found[health.WINS]
    for better in ({"told": 0.8}, {"coverage": 0.9}, {"neighbours": 0.6}):
        assert health.diagnose([{**record, **ahead, **better} for record in looks(20)]) == {}
    # It still gains: 0.02 with each look, 0.2 since the game was half as old.
    assert health.diagnose([{**record, **ahead, "coverage": 0.3 + 0.02 * i} for i, record in enumerate(looks(20))]) == {}


def test_logits_that_say_nothing_are_a_dead_discriminator():
    mute = {"real_logit": 0.001, "fake_logit": 0.002, "held_logit": 0.001, "spread": 0.001, "neighbours": 0.95}
    assert list(health.diagnose(looks(20, **mute))) == [health.DEAD]
    assert health.diagnose(looks(20, **mute | {"fake_logit": -0.05})) == {}
    assert health.diagnose(looks(20, **mute | {"spread": 0.05})) == {}
    # Where neighbours tell less, only silence is dead.
    assert health.diagnose(looks(20, **mute | {"neighbours": 0.8})) == {}
    silent = dict.fromkeys(("real_logit", "fake_logit", "held_logit", "spread"), 1e-4)
    assert list(health.diagnose(looks(20, **silent, neighbours=0.8))) == [health.DEAD]
    assert health.diagnose(looks(20, **mute | {"neighbours": 0.7})) == {}


def test_what_is_plainly_learned_by_heart_takes_two_looks():
    for seen, named in ((0.95, [health.OVERFITS]), (0.7, [])):
        records = looks(20)
        for record in records[-2:]:
            record |= SICK[health.OVERFITS] | {"seen": seen}
        unfinished = [{**record, "progress": 0.9 * record["progress"]} for record in records]
        assert list(health.diagnose(unfinished)) == named
        # No third look will come at the end.
        assert list(health.diagnose(records)) == [health.OVERFITS]


def test_modes_that_are_drawn_too_narrow_are_not_lost():
    assert health.diagnose(looks(20, duplicates=0.4, coverage=0.6)) == {}
    assert list(health.diagnose(looks(20, duplicates=0.4, coverage=0.2))) == [health.COLLAPSES]


def test_a_game_that_stands_far_away_has_lost_its_modes():
    far = {"coverage": 0.36, "distance": 0.95, "diversity": 0.55}
    assert list(health.diagnose([{**record, **far} for record in looks(20)])) == [health.COLLAPSES]
    assert health.diagnose([{**record, **far, "distance": 0.1} for record in looks(20)]) == {}
    falling = [{**record, "coverage": 0.36, "distance": 3 * 0.8**i} for i, record in enumerate(looks(20))]
    assert health.diagnose(falling) == {}


def test_a_game_that_is_farther_than_the_mean_and_covers_nothing_has_failed_even_if_it_moves():
    lost = [{**record, "coverage": 0.05, "distance": 9 * 0.7**i + 1, "diversity": 1.2} for i, record in enumerate(looks(10))]
    assert list(health.diagnose(lost)) == [health.COLLAPSES]
    assert health.diagnose([{**record, "coverage": 0.3} for record in lost]) == {}
    assert health.diagnose([{**record, "distance": record["distance"] - 1} for record in lost]) == {}


def test_samples_that_run_away_diverge():
    away = [{**record, "distance": 2.1, "diversity": 1.6} for record in looks(20)]
    found = health.diagnose(away)
    assert list(found) == [health.DIVERGES]
    assert "2.1 of the data's variance" in found[health.DIVERGES]
    assert health.DIVERGES in health.diagnose(looks(20, distance=60.0, diversity=0.1))
    # Whatever else is wrong may be why.
    assert set(health.diagnose([{**record, **SICK[health.DEAD]} for record in away])) == {health.DIVERGES, health.DEAD}
    # All samples one example: about twice the data's variance away, and no divergence.
    assert list(health.diagnose(looks(20, distance=2.0, diversity=0.0, coverage=0.01, duplicates=1.0))) == [
        health.COLLAPSES,
        health.OSCILLATES,
    ]


def test_missing_signals_name_nothing():
    nothing = [{**record, **dict.fromkeys(("held_logit", "told_held", "seen"), math.nan)} for record in looks(20)]
    assert health.diagnose(nothing) == {}
    assert list(health.diagnose(looks(20, fake_logit=math.nan))) == [health.DIVERGES]


def test_divergence_is_seen_against_what_was_usual():
    records = looks(10)
    assert health.divergence(records, FINE) is None
    assert "50" not in (health.divergence(records, {**FINE, "spread": 40 * FINE["spread"]}) or "")
    assert health.divergence(records, {**FINE, "judge_gradient": 1000 * FINE["judge_gradient"]}) is not None
    assert health.divergence([], {**FINE, "judge_gradient": 1000 * FINE["judge_gradient"]}) is None
    assert health.divergence(records, {**FINE, "spread": math.nan}) is not None


def test_the_height_of_a_critics_logits_is_no_divergence():
    high = {name: FINE[name] + 1e4 for name in ("real_logit", "held_logit", "fake_logit")}
    assert health.divergence(looks(10), {**FINE, **high}) is None
    assert "apart" in health.divergence(looks(10), {**FINE, **high, "fake_logit": 1e4 - 300})
    assert "spread of 300" in health.divergence([], {**FINE, **high, "spread": 300.0})


def test_a_rollback_stays_told_and_hides_nothing():
    (told,) = health.diagnose(looks(20), ["it exploded, and training went back to move 60"]).values()
    assert "0.5 of its learning rate" in told
    assert set(health.diagnose(looks(20, copies=0.6), ["it exploded"])) == {health.DIVERGES, health.COPIES}


def test_fixed_noise_is_noise_that_comes_again():
    fixed, noise = Fixed(3, 5), Noise(3, 5)
    for _ in range(2):
        again = fixed.again()
        assert torch.equal(again.normal(4), noise.normal(4))
        assert torch.equal(again.uniform(2), noise.uniform(2))
        again.again().normal(4).zero_()
        noise = Noise(3, 5)


def trainer(model=GAN, source="ring", **settings):
    dataset = data.load(source) if isinstance(source, str) else source
    chosen = model.recipe(dataset.spec, None)
    torch.manual_seed(0)
    values = {"steps": 4, "batch_size": 16, "ema": 0.9, **settings}
    return Trainer(model(dataset.spec, chosen.config), dataset, Settings(**values), quiet=True)


class Drawn(GAN):
    """A game whose samples are given, and whose judge reads the first number of an example."""

    def sample(self, n, *, noise, label=None):
        return self.drawn[noise.first : noise.first + n]

    def judge(self, x, *, label=None):
        return 100 * x.flatten(1)[:, 0]


def signals_of(drawn, source="ring"):
    game = trainer(Drawn, source)
    game.model.drawn = game.average.drawn = drawn
    return game.vitals.look(1, 0.5)


def test_signals_tell_samples_that_are_data_from_those_that_are_not():
    ring = data.load("ring")
    real = ring.test.batch(torch.arange(vitals.WATCHED)).x
    held, point, copies = (
        signals_of(x) for x in (real, real[:1].expand(vitals.WATCHED, -1) + 0, ring.train.batch(ring.train.positions(shuffle=0)[:512]).x)
    )
    assert 0.9 < held["diversity"] < 1.1
    assert held["coverage"] > 0.9
    assert 0.4 < held["neighbours"] < 0.6
    assert 0.4 < held["told"] < 0.6
    assert 0.4 < held["seen"] < 0.6
    assert held["copies"] < 0.05
    assert held["distance"] < 0.02
    assert point["diversity"] < 1e-6
    assert point["duplicates"] == 1.0
    assert point["coverage"] < 0.1
    assert point["distance"] > 0.5
    assert copies["copies"] > 0.9
    far = signals_of(real - 50)
    assert (far["told"], far["neighbours"], far["coverage"]) == (1.0, 1.0, 0.0)


def test_samples_of_few_data_are_compared_with_as_many():
    ring = data.load("ring")
    few = dataclasses.replace(ring.spec, size=40)
    split = ring.train.batch(ring.train.positions(shuffle=1)[:40])
    dataset = dataclasses.replace(ring, train=Split(split.x), spec=few)
    found = signals_of(ring.test.batch(torch.arange(vitals.WATCHED)).x, dataset)
    assert 0.3 < found["neighbours"] < 0.7


def test_samples_that_are_not_finite_are_a_divergence():
    found = signals_of(torch.full((vitals.WATCHED, 2), math.nan))
    assert math.isnan(found["coverage"])
    assert list(health.diagnose([found])) == [health.DIVERGES]


@pytest.mark.parametrize("name", [name for name in discovery.names("models") if "judge" in dir(discovery.model(name))])
def test_every_model_that_judges_is_watched_and_knows_who_moves_the_judge(name):
    model = discovery.model(name)
    game = trainer(model, "digits")
    judging = {game.players[i].name for i in game.vitals.judges}
    assert judging == {"discriminator"}
    game.train()
    (found,) = game.vitals.history()
    assert set(found) == set(SIGNALS)
    assert all(math.isfinite(value) for value in found.values())


def test_a_switch_takes_the_monitor_away(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(GAN, "symptoms", lambda self, batch: {"languor": "it does nothing; give it a reason"})
    monkeypatch.setattr(vitals, "SPACING", 2)
    monkeypatch.setattr(vitals, "EXAMPLES", 2)
    for watched in (True, False):
        run = pofx.train("gan", "ring", run=tmp_path / str(watched), steps=6, batch_size=16, monitor=watched, quiet=True, report=False)
        assert any("health/told" in line for line in run.metrics()) == watched
        assert ("languor" in capsys.readouterr().err) == watched
        assert ("symptoms" in run.info) == watched
    weights = [pofx.load(tmp_path / str(watched)).state_dict() for watched in (True, False)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_game_is_judged_once_between_two_moves(tmp_path, monkeypatch):
    asked, game = [], vitals.Vitals.game
    monkeypatch.setattr(vitals.Vitals, "game", lambda self: asked.append(float(self.model.progress)) or game(self))
    pofx.train("gan", "ring", run=tmp_path / "run", steps=20, batch_size=16, checkpoint_every=2, quiet=True, report=False)
    # Before each of twenty checkpoints and in the look at the end, which the last checkpoint goes by.
    assert len(asked) == len(set(asked)) == 20


def test_others_are_not_watched():
    assert trainer(discovery.model("vae")).vitals is None


def test_a_conditional_game_is_judged_under_its_labels():
    dataset = data.load("digits")
    config = dataclasses.replace(GAN.recipe(dataset.spec, None).config, conditional=True)
    model = GAN(dataset.spec, config)
    game = Trainer(model, dataset, Settings(steps=2, batch_size=16, ema=0.9), quiet=True)
    asked = []
    judge = model.judge
    model.judge = lambda x, label=None: asked.append(label) or judge(x, label=label)
    game.vitals.game()
    assert sum(map(len, asked)) == 2 * vitals.JUDGED + min(vitals.JUDGED, len(dataset.validation))
    assert all(label is not None and len(label) > 0 for label in asked)


@pytest.mark.parametrize("conditional", [False, True])
def test_watched_samples_are_drawn_and_judged_in_parts_that_equal_the_whole(conditional, monkeypatch):
    dataset = data.load("digits")
    config = dataclasses.replace(GAN.recipe(dataset.spec, None).config, conditional=conditional, channels=4, minibatch_std=4)

    def found(part):
        monkeypatch.setattr(vitals.examples, "PART", part)
        torch.manual_seed(0)
        model = GAN(dataset.spec, config)
        sizes, sample, judge = set(), model.sample, model.judge
        model.sample = lambda n, **more: sizes.add(n) or sample(n, **more)
        model.judge = lambda x, **more: sizes.add(len(x)) or judge(x, **more)
        game = Trainer(model, dataset, Settings(steps=2, batch_size=16, ema=0.9, seed=3), quiet=True).vitals
        drawn = [game._drawn(game.model, n) for _ in range(2) for n in (vitals.JUDGED, vitals.WATCHED)]
        game.look(1, 0.5)
        return drawn, game.records, sizes

    (some, parts, sizes), (whole, once, _) = found(32), found(256)
    assert max(sizes) <= 32
    assert all(len(x) == n for x, n in zip(some, (vitals.JUDGED, vitals.WATCHED) * 2, strict=True))
    assert torch.equal(some[1], some[3])
    torch.testing.assert_close(some[1], whole[1])
    torch.testing.assert_close(parts, once, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_looking_changes_nothing_of_the_training():
    def state(look):
        game = trainer(steps=6)
        if look:
            game.vitals.due = lambda step: True
        game.train()
        return game.model.state_dict()

    watched, alone = state(True), state(False)
    assert all(torch.equal(watched[name], alone[name]) for name in alone)


def test_signals_stand_in_the_metrics_and_failures_in_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(vitals, "SPACING", 2)
    monkeypatch.setattr(vitals, "EXAMPLES", 2)
    monkeypatch.setattr(health, "BLIND", 1.1)
    monkeypatch.setattr(health, "APART", 0.0)
    monkeypatch.setattr(health, "FAR", math.inf)
    for bound in ("THIN", "BARE", "HOLLOW"):
        monkeypatch.setattr(health, bound, 0.0)
    run = pofx.train("gan", "ring", run=tmp_path / "run", steps=40, batch_size=16, quiet=True)
    lines = [line for line in run.metrics() if "health/told" in line]
    assert len(lines) >= 20
    assert set(lines[-1]["symptoms"]) == {health.DEAD}
    told = json.loads((run.path / "run.json").read_text())["symptoms"]
    assert list(told) == [health.DEAD]
    assert capsys.readouterr().err.count(f"warning: {health.DEAD}: the discriminator tells only") == 1
    page = (run.path / "report.html").read_text()
    assert "While training, discriminator dead" in page
    assert "<h2>Health</h2>" in page


def test_the_figure_shows_three_groups_and_the_curves(tmp_path):
    run = pofx.train("gan", "digits", run=tmp_path / "run", steps=4, batch_size=16, quiet=True, report=False)
    model, dataset = run.model(), run.dataset()
    logits = judged(model, dataset)
    assert set(logits) == {"training", "held-out", "generated"}
    figure = figures.draw("health", model, dataset, run=run)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[1:] == ["mean logits", "gradients", "diversity of samples"]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    assert len(figures.draw("health", model, dataset).axes[0].get_legend().get_texts()) == 3


@pytest.mark.parametrize("source", ["ring", "digits"])
def test_quick_features_keep_the_distances_of_the_slow_ones(source):
    dataset = data.load(source)
    x = dataset.test.batch(torch.arange(170)).x
    slow = features.convolutions(dataset) if dataset.spec.kind == "images" else features.components(dataset)
    near, far = (torch.pdist(torch.from_numpy(by(x))) for by in (features.quick(dataset, examples=features.FITTED), slow))
    assert torch.corrcoef(torch.stack((near, far)))[0, 1] > 0.995
    assert float((near / far).median()) == pytest.approx(1.0, abs=0.02)


def test_what_matters_most_stands_where_a_terminal_has_room(capsys):
    display = Display(quiet=False)
    with display:
        display.flag("mode collapse")
        display.note(validation=3.25)
        display.update(1.0, {"a/real": 1.0, "a/total": 1.5, "b/total": 2.5}, 10.0, 1000)
    shown = capsys.readouterr().err
    names = ["! mode collapse", "validation 3.25", "a/total 1.5", "b/total 2.5", "a/real 1"]
    assert [shown.index(name) for name in names] == sorted(shown.index(name) for name in names)
    assert shown.count("a/total") == 1


def test_a_training_of_few_looks_is_judged_at_its_end():
    lost = {**FINE, "duplicates": 0.6, "coverage": 0.03}
    two = [{"step": 300.0, "progress": 0.5, **lost}, {"step": 600.0, "progress": 1.0, **lost}]
    assert list(health.diagnose(two)) == [health.COLLAPSES]
    assert health.diagnose([two[0], {**two[1], "progress": 0.9}]) == {}, "there may be another look"
    assert health.diagnose(two[1:]) == {}, "one look is none"
    assert health.diagnose([{**two[0], **FINE}, two[1]]) == {}


def test_the_last_look_of_a_training_is_at_its_end(monkeypatch):
    monkeypatch.setattr(vitals, "SPACING", 2)
    monkeypatch.setattr(vitals, "EXAMPLES", 2)
    game = trainer(steps=5)
    game.train()
    shares = [record["progress"] for record in game.vitals.history()]
    assert shares == sorted(shares)
    assert shares[0] < 1.0
    assert shares[-1] == 1.0


def test_gradients_that_no_game_needs_are_a_divergence_at_once():
    assert list(health.diagnose([{"step": 300.0, "progress": 0.3, **FINE, "judge_gradient": 6.7e4}])) == [health.DIVERGES]
    assert health.diagnose([{"step": 300.0, "progress": 0.3, **FINE, "judge_gradient": 300.0}]) == {}


def test_a_divergence_without_a_way_back_says_so_once(tmp_path, capsys):
    rates = {"optimizer": Optimizer(lr=1.0), "discriminator_optimizer": Optimizer(lr=1.0)}
    run = pofx.train("gan", "digits", run=tmp_path / "run", steps=700, quiet=True, report=False, **rates)
    told = capsys.readouterr().err
    assert told.count("divergence: ") >= 1
    assert told.count("no checkpoint from before the divergence was in order") == 1
    assert run.info["status"] == "finished"


def test_a_critic_without_bounds_is_told_of_before_training():
    def notes(**fields):
        return build_gan(loss="wasserstein", **{"gamma": 0.0, **fields}).notes

    assert "wasserstein critic" in notes()[0]
    assert notes(wgan_gp=10.0) == notes(gamma=0.3) == notes(spectral_norm=True) == build_gan(gamma=0.0).notes == ()


def build_gan(**fields):
    return GAN(core.DataSpec("vectors", (2,)), GAN.Config(hidden=(8,), **fields))
