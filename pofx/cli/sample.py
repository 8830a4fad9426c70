"""Draws new examples from a trained model: pofx sample RUN."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from pofx.core import Model
    from pofx.data import Codec
    from pofx.run import Run

#: Fields that are passed to the model's own `sample`, where it has them.
KNOBS = (
    "prompt", "temperature", "truncation", "code", "top_k", "top_p", "repetition_penalty", "no_repeat_ngram", "stop", "length", "mode",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Draws new examples from a trained model."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run folder, or RUN@best, RUN@last, RUN@STEP."""
    n: int = 64
    """How many."""
    seed: int = 0
    """Equal seeds give equal samples."""
    label: str | None = None
    """What the samples are of (conditional models): a class by its name, or several, cat,dog, one after the other; attributes,
    smiling=1,glasses=0; values, age=40."""
    prompt: str | None = None
    """Text that every sample starts with (models of text)."""
    out: str | None = None
    """.png grid, .npz, .txt, .csv, .jsonl or folder/. By default a file in RUN/samples; texts go to standard output."""
    prior: str | None = None
    """own (the model's), or one that `pofx fit-prior` has fitted, by its name. By default the one last fitted to this
    checkpoint, else own."""
    direction: str | None = None
    """Move every code along a direction that `pofx directions` has found, by its name."""
    strength: float | None = None
    """How far, in standard deviations of the prior; 2 if nothing is given, and backwards below 0."""
    directions: str | None = None
    """The file of the direction. By default that of the run."""
    temperature: float | None = None
    """Below 1 draws likelier examples; of texts, 0 takes the likeliest token each time."""
    truncation: float | None = None
    """Draw the noise within so many standard deviations: examples more typical and more alike (GANs);
    1 to 2 as a rule."""
    code: str | None = None
    """Fix codes that have learned a meaning, by name: c0=3,c1=-0.5 (infogan); `pofx plot RUN codes` shows what they do."""
    top_k: int | None = None
    """Draw among the k likeliest tokens only."""
    top_p: float | None = None
    """Draw among the fewest of the likeliest tokens that have this probability together."""
    repetition_penalty: float | None = None
    """Above 1 makes tokens that a text has already less likely: their log-probabilities are multiplied by it."""
    no_repeat_ngram: int | None = None
    """No so many tokens in a row come twice in a text."""
    stop: tuple[str, ...] | None = None
    """A text ends once it has one of these strings after its prompt; \\n is a line end."""
    length: int | None = None
    """New tokens of each text, at most."""
    mode: Literal["draw", "mean"] | None = None
    """A draw from the likelihood, or its mean."""


def run(options: Options) -> None:
    """Draws and writes."""
    import pathlib

    from pofx import asked, discovery, examples, priors, progress
    from pofx.core import Samples, UsageError

    if options.n < 1:
        raise UsageError(f"--n must be at least 1, not {options.n}")
    found = asked.opened(options.run)
    model, codec = found.model(prior=options.prior), found.codec
    discovery.require(model, Samples, what="sample")
    if options.prior is None and not priors.in_use(model) and (stopgap := getattr(model, "stopgap", "")):
        better = f"pofx fit-prior {options.run} --kind knn fits a better density to them"
        progress.tell([f"codes are drawn from {stopgap}, since training asked for no prior: {better}"])
    direct = _direct(model, found, options)
    label = asked.labels(model, options.label, options.n, options.seed)
    knobs = _knobs(model, codec, options)
    if options.out is None and model.spec.kind == "tokens":
        _tell(model, codec, options, knobs)
        return
    x = examples.draw(model, options.n, seed=options.seed, label=label, **knobs)
    ending = asked.ending(model.spec.kind)
    of = f"-{options.label}".replace("/", "_") if options.label is not None else ""
    of += f"-{priors.in_use(model).partition(' ')[0]}" if priors.in_use(model) else ""
    of += direct.replace("/", "_")
    path = found.path / "samples" / f"{found.step}-seed{options.seed}{of}{ending}" if options.out is None else pathlib.Path(options.out)
    codec.write(x, path, label)
    print(path)


def _direct(model: "Model", run: "Run", options: Options) -> str:
    """Moves the codes where a direction is asked for, and names the move."""
    from pofx.core import UsageError

    if options.direction is None:
        for flag in ("strength", "directions"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag} is of a direction: name one with --direction, or leave it out")
        return ""
    from pofx import directions  # here, since it draws as well

    strength = 2.0 if options.strength is None else options.strength
    directions.move(model, run, options.direction, strength, options.directions)
    return f"-{options.direction}{strength:+g}"


def _knobs(model: "Model", codec: "Codec", options: Options) -> dict[str, Any]:
    """What was asked for, which the model's `sample` must have."""
    from pofx import asked as named
    from pofx import examples
    from pofx.core import UsageError

    has = examples.knobs_of(model)
    asked = {name: getattr(options, name) for name in KNOBS if getattr(options, name) is not None}
    for name in asked:
        if name not in has:
            known = ", ".join(f"--{knob.replace('_', '-')}" for knob in KNOBS if knob in has) or "none"
            raise UsageError(f"sampling from this {type(model).__name__} has no --{name.replace('_', '-')}; it has: {known}")
    if model.spec.kind != "tokens" and (of_texts := sorted({"prompt", "stop"} & set(asked))):
        raise UsageError(
            f"--{of_texts[0]} is of texts, and this run models {model.spec.kind}: leave it out (pofx forecast goes on from a series)"
        )
    if "prompt" in asked:
        asked["prompt"] = named.text(codec, asked["prompt"]).long()
    if "code" in asked:
        asked["code"] = named.values(asked["code"], "--code")
    if "stop" in asked:
        asked["stop"] = codec.ends([text.replace("\\n", "\n") for text in asked["stop"]])  # type: ignore[attr-defined]
    return asked


def _tell(model: "Model", codec: "Codec", options: Options, knobs: dict[str, Any]) -> None:
    """Texts on standard output, the first one symbol by symbol as it is drawn where the model can be watched."""
    from pofx import examples
    from pofx.data.text import RULE, Spelling

    spelling = Spelling(codec)  # type: ignore[arg-type]

    watched = "watch" in examples.knobs_of(model)
    unsaid = [knobs["prompt"]] if watched and "prompt" in knobs else []

    def say(new: "Tensor") -> None:
        # The prompt only once the model has accepted everything else that was asked.
        while unsaid:
            print(spelling.add(unsaid.pop()), end="")
        print(spelling.add(new), end="", flush=True)

    x = examples.draw(model, options.n, seed=options.seed, watch=(lambda new: say(new[:1])) if watched else None, **knobs)
    say(x[:1, :0].flatten())
    texts = list(codec.show(x))
    print(RULE.join([spelling.rest() if watched else texts[0], *texts[1:]]))
