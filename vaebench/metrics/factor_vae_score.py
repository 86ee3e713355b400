"""The score of FactorVAE."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.votes import Sharing

ACTIVE = 0.05  # codes with a smaller standard deviation are ignored


class FactorVAEScore(Metric):
    """Accuracy of telling a fixed factor by the code that varies least (Kim and Mnih, 2018, section 4).

    A factor is chosen and a group of examples that share its value; the code with the least variance, relative to its
    variance over all examples, votes. The majority of the votes of each code is its factor, and the score is the share
    of further votes that it gets right: 1 for a perfect code, about 1 / F for one that knows nothing. Codes whose
    standard deviation is below 0.05 do not vote. Groups are drawn with replacement from the evaluated examples.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359, for the numbers of votes
    Args:
        num_train: Votes that decide which factor a code stands for, >= 1.
        num_test: Votes that are judged, >= 1.
        group_size: Examples in a group, >= 2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "factors"})

    def __init__(self, num_train: int = 10000, num_test: int = 5000, group_size: int = 64) -> None:
        check_range("num_train", num_train, at_least=1, whole=True)
        check_range("num_test", num_test, at_least=1, whole=True)
        check_range("group_size", group_size, at_least=2, whole=True)
        self.num_train, self.num_test, self.group_size = num_train, num_test, group_size

    def measure(self, subject: Subject) -> Result:
        """Return factor_vae_score."""
        codes = subject.codes()
        assert codes.factors is not None
        deviation = codes.z.std(0)
        active = deviation > ACTIVE
        varying = [k for k in range(codes.factors.shape[1]) if bool((codes.factors[:, k] != codes.factors[0, k]).any())]
        if not bool(active.any()):
            raise NotApplicableError(f"no code varies by more than {ACTIVE} (standard deviation): none can vote")
        if len(varying) < 2:
            raise NotApplicableError("fewer than two factors vary among the examples; raise num_examples")
        z = codes.z[:, active] / deviation[active]
        num_votes = self.num_train + self.num_test
        chosen = torch.randint(len(varying), (num_votes,))
        winners = torch.zeros(num_votes, dtype=torch.int64)
        for index, k in enumerate(varying):
            sharing = Sharing(codes.factors[:, k])
            votes = (chosen == index).nonzero()[:, 0]
            for part in votes.split(1000):
                first = torch.randint(len(codes), (len(part), 1)).expand(-1, self.group_size)
                winners[part] = z[sharing.partners(first)].var(1).argmin(1)
        table = torch.zeros(z.shape[1], len(varying))
        train, test = slice(0, self.num_train), slice(self.num_train, None)
        table.index_put_((winners[train], chosen[train]), torch.ones(self.num_train), accumulate=True)
        right = (table.argmax(1)[winners[test]] == chosen[test]).double()
        value = right.mean().item()
        error = math.sqrt(value * (1 - value) / self.num_test)
        how = (
            f"majority of {self.num_train} votes, judged on {self.num_test}, groups of {self.group_size} out of "
            f"{len(codes)} examples; {int(active.sum())} of {len(active)} codes vote; chance is 1/{len(varying)}; s.e. "
            "over votes"
        )
        return Result({"factor_vae_score": Estimate(value, error, len(codes), "of 1", "higher")}, how)
