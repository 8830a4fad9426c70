"""A network that grows: its schedule, fades without a jump, layers that are yet to come, and a kill in the middle of a fade."""

import dataclasses
import itertools
import signal

import kill
import pytest
import torch
from refusals import refused

import pofx
from pofx import checkpoint, data, figures
from pofx.cli import main
from pofx.core import Batch, DataSpec, Noise, UsageError
from pofx.data.images import apart, grid
from pofx.figures import growth
from pofx.models.adversarial.progressive_gan import ProgressiveGAN, Schedule
from pofx.nn.growing import EqualConv, EqualLinear, enlarge, halve, pixel_norm, sizes
from pofx.run import Run
from pofx.settings import Settings
from pofx.trainer import Trainer

FACES = DataSpec("images", (1, 23, 18), size=400, bits=8)


def build(spec=FACES, **fields):
    torch.manual_seed(0)
    return ProgressiveGAN(spec, dataclasses.replace(ProgressiveGAN.recipe(spec, None).config, **{"channels": 4, "latent_dim": 6} | fields))


def test_sizes_halve_rounded_up():
    assert sizes((1, 32, 32)) == ((4, 4), (8, 8), (16, 16), (32, 32))
    assert sizes((1, 112, 92)) == ((4, 3), (7, 6), (14, 12), (28, 23), (56, 46), (112, 92))


@pytest.mark.parametrize("shape", [(1, 23, 18), (3, 32, 32), (1, 7, 100)])
def test_halving_undoes_enlarging(shape):
    small, large = sizes(shape)[-2:]
    x = torch.rand(2, shape[0], *small)
    assert halve(torch.rand(2, shape[0], *large)).shape == x.shape
    torch.testing.assert_close(halve(enlarge(x, large)), x)


def test_the_schedule_is_two_lists():
    schedule = Schedule.of((1, 1, 2), (2, 2), ((4, 4), (8, 8), (16, 16)))
    expected = {
        0: (0, 1.0),
        0.12: (0, 1.0),
        0.25: (1, 0.5),
        0.375: (1, 1.0),
        0.45: (1, 1.0),
        0.6875: (2, 0.75),
        0.75: (2, 1.0),
        1: (2, 1.0),
    }
    for progress, (stage, alpha) in expected.items():
        assert schedule.at(progress) == (stage, pytest.approx(alpha)), progress
    grown = [stage + alpha for stage, alpha in (schedule.at(i / 1000) for i in range(1001))]
    assert all(0 <= b - a < 0.01 or (a % 1 == 0 and b - a <= 1.01) for a, b in itertools.pairwise(grown))
    with pytest.raises(UsageError, match=r"3 sizes .4 x 4, 8 x 8, 16 x 16.*not 2 and 2"):
        Schedule.of((1, 1), (1, 1), ((4, 4), (8, 8), (16, 16)))


def at(model, progress):
    model.progress.fill_(progress)
    return model


def test_a_growth_begins_where_the_stage_before_ended():
    """With the newest layers at no weight, samples and judgements are those of the stage before."""
    model = build(minibatch_std=0).eval()
    z, x = torch.randn(3, 6), torch.rand(3, 1, 23, 18)
    for stage in (1, 2):
        start = model.schedule.ends[2 * stage - 2]
        with torch.no_grad():
            at(model, start - 1e-9)
            before = [model.decode(z), model.judge(x)]
            at(model, start + 1e-9)
            after = [model.decode(z), model.judge(x)]
            at(model, model.schedule.ends[2 * stage - 1])
            grown = [model.decode(z), model.judge(x)]
        for old, new, final in zip(before, after, grown, strict=True):
            torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-4)
            assert (final - old).abs().max() > 1e-3


def test_samples_are_whole_at_every_stage():
    model = build().eval()
    for i in range(11):
        x = at(model, i / 10).sample(2, noise=Noise(0, 2))
        assert x.shape == (2, 1, 23, 18)
        coarse = x
        while coarse.shape[2:] != model.sizes[model.stage[0]]:
            coarse = halve(coarse)
        torch.testing.assert_close(model._whole(coarse), x)


def test_layers_that_are_yet_to_come_rest():
    """No gradient, no optimizer state, and an average that is their value."""
    dataset = data.load("digits")
    torch.manual_seed(0)
    model = ProgressiveGAN(dataset.spec, dataclasses.replace(ProgressiveGAN.recipe(dataset.spec, None).config, channels=4, latent_dim=6))
    trainer = Trainer(model, dataset, Settings(steps=40, batch_size=8, ema=0.9, seed=0))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(4):
        for player in (0, 1):
            trainer.move(player, 0.01)
    remembered = {id(parameter) for optimizers in trainer.optimizers for optimizer in optimizers for parameter in optimizer.state}
    late = {
        name
        for name, _ in model.named_parameters()
        if name.split(".")[2:3] == ["1"] and name.split(".")[1] in ("blocks", "to_image", "from_image")
    }
    assert len(late) > 8
    for name, parameter in model.named_parameters():
        assert (id(parameter) in remembered) == (name not in late), name
        if name in late:
            assert parameter.grad is None
            assert torch.equal(parameter, start[name])
            assert torch.equal(parameter, trainer.average.state_dict()[name])
    trainer.move(0, 0.3)
    assert {id(p) for p in trainer.optimizers[0][0].state} - remembered


def test_equal_layers_keep_the_scale_of_their_inputs():
    torch.manual_seed(0)
    for layer, x in ((EqualLinear(300, 400, gain=1.0), torch.randn(64, 300)), (EqualConv(50, 60, gain=1.0), torch.randn(8, 50, 12, 12))):
        inner = layer(x)[..., 1:-1, 1:-1] if x.ndim == 4 else layer(x)
        assert inner.var().item() == pytest.approx(1, rel=0.1)
        assert layer.weight.var().item() == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(8, 12, 12), rtol=1e-3, atol=1e-3)


def test_directions_of_the_game():
    """The discriminator's gradient lowers its logit on fakes, the generator's raises it, in the middle of a fade."""
    model = at(build(gamma=0.0, minibatch_std=0), 0.0).train()
    at(model, sum(model.schedule.ends[:2]) / 2)
    assert 0 < model.stage[1] < 1
    z, x = torch.randn(16, 6), torch.rand(16, 1, 23, 18)

    def fake_logit():
        with torch.no_grad():
            return model._logit(model._images(z)).mean()

    before = fake_logit()
    for loss, network, sign in ((model.generator_loss, model.generator, 1), (model.discriminator_loss, model.discriminator, -1)):
        saved = {name: value.clone() for name, value in network.state_dict().items()}
        model.zero_grad()
        torch.manual_seed(1)
        loss(Batch(x)).total.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
        assert sign * (fake_logit() - before) > 0
        network.load_state_dict(saved)


def test_a_kill_in_the_middle_of_a_fade(tmp_path):
    """8 x 8 fades in over moves 6 to 11 of 24; what is saved after 10 moves goes on there."""
    run = tmp_path / "straight"
    assert main(kill.arguments("progressive_gan", tmp_path, run)) == 0
    expected = kill.hashes(run)
    for player in ("discriminator", "generator"):
        run = tmp_path / player
        died = kill.child(f"loss:{player}:6", kill.arguments("progressive_gan", tmp_path, run))
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert checkpoint.steps(run / "checkpoints")[-1] == 10
        model = pofx.load(run)
        assert model.stage == (1, pytest.approx(0.5))
        assert model.schedule.at(10 / (2 * kill.ROUNDS)) == (1, pytest.approx(2 / 3))
        assert main(["train", "--run", str(run), "--resume", "--quiet"]) == 0
        assert kill.hashes(run) == expected


def test_growth_is_what_each_size_drew_in_its_time(tmp_path, capsys):
    """Later the layer that made the image of a size is no longer trained, while those below it are."""
    path = tmp_path / "run"
    assert main(kill.arguments("progressive_gan", tmp_path, path)) == 0
    run, dataset = Run.open(path), data.load(tmp_path / "images.npz")
    # 4 x 4 stands for the first quarter of 24 moves.
    assert run.milestones() == {6: "4 x 4"}
    names, frames = growth.stages(run.model(), run, 20)
    assert [name.splitlines() for name in names] == [["4 x 4", "move 6"], ["now", "move 24"]]
    assert len(figures.draw("growth", run.model(), dataset, run=run).axes[0].texts) == 2
    assert len(figures.film("growth", run.model(), dataset, run=run)) == 4 + 4 + 4
    # What a run that is killed at the end of the size draws.
    other = tmp_path / "early"
    died = kill.child("loss:discriminator:4", kill.arguments("progressive_gan", tmp_path, other, "--checkpoint-every", "6"))
    assert died.returncode == -signal.SIGKILL, died.stderr
    early = pofx.load(other)
    assert early.stage == (0, 1.0)
    # To what a picture and a training in bfloat16 leave.
    torch.testing.assert_close(frames[0], early.sample(20, noise=Noise(0, 20)), atol=0.02, rtol=0)
    assert (frames[0] - frames[1]).abs().max() > 0.05
    torch.testing.assert_close(frames[1], run.model().sample(20, noise=Noise(0, 20)))
    with pytest.raises(UsageError, match="read from the run"):
        figures.draw("growth", early, dataset)
    assert main(["train", "--run", str(other), "--resume", "--quiet"]) == 0
    assert Run.open(other).milestones() == run.milestones()
    assert main(["train", "gan", "--data", str(tmp_path / "images.npz"), "--run", str(tmp_path / "gan"), "--steps", "2", "--quiet"]) == 0
    assert "needs a model that grows" in refused(capsys, "plot", str(tmp_path / "gan"), "growth")


@pytest.mark.parametrize("shape", [(1, 23, 18), (3, 8, 8)])
def test_a_grid_is_taken_apart(shape):
    x = (255 * torch.rand(64, *shape)).round() / 255
    picture = grid(x)
    torch.testing.assert_close(apart(picture[..., 0] if shape[0] == 1 else picture, shape[1:], 64), x)


def test_wrong_lists_are_refused(capsys):
    assert "give stable one number for each" in refused(
        capsys, "train", "progressive_gan", "--data", "digits", "--steps", "2", "--model.stable", "1", "1", "1"
    )
