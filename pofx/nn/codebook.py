"""A codebook: the vectors that a quantised code may consist of, each at the running mean of what it stands for."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pofx.nn.ranks import first, summed

DEAD = 0.05
"""An entry that stands for less than this share of an even part of the vectors is dead, and is moved to one of them."""


class Codebook(nn.Module):
    """`size` entries e_k; a vector is replaced by its nearest one, and entries follow the n_k vectors that they replace.

        N_k <- decay N_k + (1 - decay) n_k,    m_k <- decay m_k + (1 - decay) sum of these vectors,    e_k = m_k / N_k

    The first batch places all entries on vectors of its own, and a dead entry is placed anew, by the global generator.
    Ranks learn from the vectors of all of them, so that their entries stay the same.

    Arguments:
        size: entries.
        features: numbers of one.
        decay: of the running sums.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), appendix A.1, https://arxiv.org/abs/1711.00937
        Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), https://arxiv.org/abs/1906.00446
        Jukebox: A Generative Model for Music (Dhariwal et al., 2020), section 4 (dead entries), https://arxiv.org/abs/2005.00341
    """

    def __init__(self, size: int, features: int, *, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", torch.randn(size, features))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def entries(self) -> Float[Tensor, "size features"]:
        """e_k."""
        return self.sums / self.counts[:, None]

    def nearest(self, z: Float[Tensor, "... features"]) -> Int64[Tensor, "..."]:
        """The number of the entry that is nearest to each vector (Euclidean)."""
        entries = self.entries
        # |z|^2 is the same for all entries.
        return (entries.square().sum(1) - 2 * (z @ entries.T)).argmin(-1)

    def __getitem__(self, chosen: Int64[Tensor, "..."]) -> Float[Tensor, "... features"]:
        """Entries by number."""
        return F.embedding(chosen, self.entries)

    @torch.no_grad()
    def learn(self, z: Float[Tensor, "... features"]) -> tuple[Int64[Tensor, "..."], Float[Tensor, "... features"]]:
        """The number of the nearest entry of each vector, and those entries, which then follow the vectors."""
        rows, size = z.flatten(0, -2), len(self.counts)
        spare = rows[torch.randint(len(rows), (size,), device=z.device)]
        if self.updates == 0:
            _, _, spare = self._over_ranks(self.counts, self.sums, spare)
            self.counts.fill_(len(rows) / size)
            self.sums.copy_(spare * self.counts[:, None])
        chosen = self.nearest(rows)
        entries = self[chosen]
        hits = F.one_hot(chosen, size).to(rows.dtype)
        counts, sums, spare = self._over_ranks(hits.sum(0), hits.T @ rows, spare)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        even = counts.sum() / size
        dead = self.counts < DEAD * even
        self.counts.copy_(torch.where(dead, even, self.counts))
        self.sums.copy_(torch.where(dead[:, None], even * spare, self.sums))
        self.updates += 1
        return chosen.view(z.shape[:-1]), entries.view_as(z)

    @staticmethod
    def _over_ranks(counts: Tensor, sums: Tensor, spare: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts and sums of all ranks, and the vectors that the first one has to spare."""
        packed = summed(torch.cat((counts[:, None], sums, spare if first() else torch.zeros_like(spare)), 1))
        counts, sums, spare = packed.split((1, sums.shape[1], spare.shape[1]), 1)
        return counts[:, 0], sums, spare


def perplexity(chosen: Int64[Tensor, "..."], size: int) -> tuple[Float[Tensor, ""], Bool[Tensor, " size"]]:
    """exp of the entropy of how often each entry is chosen, from 1 to `size`; and which entries are chosen at all."""
    counts = torch.bincount(chosen.flatten(), minlength=size)
    p = counts / counts.sum()
    return (-torch.xlogy(p, p).sum()).exp(), counts > 0
