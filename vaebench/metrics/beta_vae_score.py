"""The score of beta-VAE."""

from __future__ import annotations

import math
import warnings
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.votes import Sharing


class BetaVAEScore(Metric):
    """Accuracy of a linear classifier that tells which factor pairs of examples share (Higgins et al., 2017, sect. 3).

    Its input is the mean of |z_1 - z_2| over pairs that share a factor's value. 1 for a perfect code, about 1 / F for
    one that knows nothing; also 1 for codes that are rotated but linear. Pairs are drawn from the evaluated examples.

    References:
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359, for the numbers and for logistic regression
    Args:
        num_train: Means on which the classifier is fitted, >= 10.
        num_test: Means on which it is judged, >= 1.
        num_pairs: Pairs in a mean, >= 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "factors"})

    def __init__(self, num_train: int = 10000, num_test: int = 5000, num_pairs: int = 64) -> None:
        check_range("num_train", num_train, at_least=10, whole=True)
        check_range("num_test", num_test, at_least=1, whole=True)
        check_range("num_pairs", num_pairs, at_least=1, whole=True)
        self.num_train, self.num_test, self.num_pairs = num_train, num_test, num_pairs

    def measure(self, subject: Subject) -> Result:
        """Return beta_vae_score."""
        from sklearn.linear_model import LogisticRegression

        codes = subject.codes()
        assert codes.factors is not None
        varying = [k for k in range(codes.factors.shape[1]) if bool((codes.factors[:, k] != codes.factors[0, k]).any())]
        if len(varying) < 2:
            raise NotApplicableError("fewer than two factors vary among the examples; raise num_examples")
        num = self.num_train + self.num_test
        chosen = torch.randint(len(varying), (num,))
        differences = torch.zeros(num, codes.z.shape[1], dtype=torch.float64)
        for index, k in enumerate(varying):
            sharing = Sharing(codes.factors[:, k])
            for part in (chosen == index).nonzero()[:, 0].split(1000):
                differences[part] = self._means(codes.z, sharing, len(part))
        x, y = differences.numpy(), chosen.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no convergence: the classifier is scored as it is
            classifier = LogisticRegression(max_iter=1000).fit(x[: self.num_train], y[: self.num_train])
        right = classifier.predict(x[self.num_train :]) == y[self.num_train :]
        value = float(right.mean())
        how = (
            f"logistic regression on {self.num_train} means of {self.num_pairs} pairs, judged on {self.num_test}, "
            f"out of {len(codes)} examples; chance is 1/{len(varying)}; s.e. over the means"
        )
        error = math.sqrt(value * (1 - value) / self.num_test)
        return Result({"beta_vae_score": Estimate(value, error, len(codes), "of 1", "higher")}, how)

    def _means(self, z: Tensor, sharing: Sharing, number: int) -> Tensor:
        first = torch.randint(len(z), (number, self.num_pairs))
        return (z[first] - z[sharing.partners(first)]).abs().mean(1)
