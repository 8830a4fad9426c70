"""What a model of tokens can do once it can read: score, write and complete texts."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from pofx.core import Completes, DataSpec, Likelihood, Noise, Predicts, Samples, Scores
from pofx.nn import labels
from pofx.nn.sampling import Choice, Read, Stop, Watch, check, fill, write


class Passage(NamedTuple):
    """What is written: `length` new elements, or an example's, behind a `prompt`; see `pofx.nn.sampling.write` for `stop` and `watch`."""

    length: int | None = None
    prompt: Shaped[Tensor, "prompt ..."] | None = None
    stop: Stop | None = None
    watch: Watch | None = None


class Writes(Samples, Scores, Predicts, Completes):
    """A model of tokens without labels that predicts each token from those before it, and with this alone does everything else."""

    spec: DataSpec
    window: int

    @property
    def vocabulary(self) -> int:
        """Symbols that can come next."""
        return self.spec.vocabulary

    def reader(self, x: Int64[Tensor, "batch time"]) -> Read:
        """From rising positions to the logits of what stands there, given what x holds to the left at the time of the call.

        A model that remembers what it has read is quicker than this, which reads everything anew.
        """
        return lambda position: self.logits(x[:, : position + 1])[:, -1]

    @torch.no_grad()
    def log_prob(self, x: Int64[Tensor, "batch time"], *, label: Tensor | None = None) -> Likelihood:
        """Exact log p(x) in nats per example: the sum over its tokens. `label` must be None."""
        self._refuse(label)
        check(x.flatten(), self.vocabulary)
        return Likelihood(self._log_p(x).sum(1), "exact", "tokens")

    def _log_p(self, x: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        """log p of each token given those before it."""
        return self.logits(x).log_softmax(-1).gather(-1, x[..., None])[..., 0]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        noise: Noise,
        label: Tensor | None = None,
        length: int | None = None,
        prompt: Shaped[Tensor, "prompt ..."] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        no_repeat_ngram: int | None = None,
        stop: Stop | None = None,
        watch: Watch | None = None,
        mode: Literal["draw", "mean"] = "draw",
    ) -> Shaped[Tensor, "n ..."]:
        """n texts, each the prompt, of any length, and `length` new tokens, or one window of them; so too of sequences.

        Arguments:
            label: must be None where the model is not conditional.
            temperature, top_k, top_p, repetition_penalty, no_repeat_ngram, mode: see `Choice`.
            stop, watch: see `pofx.nn.sampling.write`.

        Raises `UsageError` for a prompt outside the vocabulary and for a knob that makes no sense.
        """
        choice = Choice(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram=no_repeat_ngram,
            mode=mode,
        )
        return self._write(n, choice, Passage(length, prompt, stop, watch), noise=noise, label=label)

    def _write(self, n: int, choice: Choice, passage: Passage, *, noise: Noise, label: Tensor | None) -> Shaped[Tensor, "n ..."]:
        """What `sample` gives."""
        self._refuse(label)
        if passage.length is None:
            passage = passage._replace(length=self.window)
        return write(self.reader, n, vocabulary=self.vocabulary, choice=choice, noise=noise, **passage._asdict())

    @torch.no_grad()
    def complete(
        self, x: Int64[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, noise: Noise, temperature: float = 1.0
    ) -> Int64[Tensor, "batch time"]:
        """x with the tokens where `mask` is False drawn anew, from left to right (see `pofx.nn.sampling.fill`)."""
        return fill(self.reader, x, mask, vocabulary=self.vocabulary, choice=Choice(temperature=temperature), noise=noise)

    def _refuse(self, label: Tensor | None) -> None:
        labels.refuse(label, f"this {type(self).__name__}")
