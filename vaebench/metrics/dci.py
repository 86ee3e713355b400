"""Disentanglement, completeness and informativeness."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.probing import labelled


def concentration(weights: Tensor) -> Tensor:
    """Return 1 - H(p) / log K for each row of weights, shape (N, K), in [0, 1]; 0 for a row of zeros.

    H is the entropy of a row's shares: 1 where one entry has all, 0 where all have the same.
    """
    total = weights.sum(1, keepdim=True)
    share = weights / total.clamp_min(1e-300)
    entropy = -torch.special.xlogy(share, share).sum(1) / np.log(weights.shape[1])
    return torch.where(total[:, 0] > 0, 1 - entropy, torch.zeros_like(entropy))


def disentanglement(importance: Tensor) -> float:
    """Return the mean over codes of how far each serves one factor, weighted by importance; shape (D, F)."""
    weights = importance.sum(1) / importance.sum().clamp_min(1e-300)
    return float((weights * concentration(importance)).sum())


def completeness(importance: Tensor) -> float:
    """Return the mean over factors of how far each is served by one code, weighted by importance; shape (D, F)."""
    return disentanglement(importance.T)


class DCI(Metric):
    """Disentanglement, completeness, informativeness (Eastwood and Williams, 2018, section 2).

    Trees are fitted to tell each factor from the means of q(z|x) of the training split. R_ij is how much code i matters
    for factor j; D and C are one minus the normalised entropies of its rows and columns, weighted by importance, and
    informativeness is the accuracy on the evaluated examples.

    References:
        A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and Williams, 2018),
        https://openreview.net/forum?id=By-7dz-AZ;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359, for boosted trees
    Args:
        trees: gradient_boosting, as published, or random_forest, some times faster, whose values carry its name.
        num_train: Training examples that are used, >= 10; the first of the split.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "factors"})

    def __init__(
        self, trees: Literal["gradient_boosting", "random_forest"] = "gradient_boosting", num_train: int = 10000
    ) -> None:
        if trees not in ("gradient_boosting", "random_forest"):
            raise ValueError(f"trees must be gradient_boosting or random_forest; got '{trees}'")
        check_range("num_train", num_train, at_least=10, whole=True)
        self.trees, self.num_train = trees, num_train

    def measure(self, subject: Subject) -> Result:
        """Return dci_disentanglement, dci_completeness and dci_informativeness."""
        codes, train = subject.codes(), labelled(subject, "train")
        assert codes.factors is not None
        assert train.factors is not None
        z, factors = train.z[: self.num_train].numpy(), train.factors[: self.num_train].numpy()
        varying = [k for k in range(factors.shape[1]) if len(np.unique(factors[:, k])) > 1]
        if len(varying) < 2 or z.shape[1] < 2:
            raise NotApplicableError("with fewer than two codes, or two factors that vary, nothing is entangled")
        importance = torch.zeros(z.shape[1], len(varying), dtype=torch.float64)
        right = torch.zeros(len(codes), len(varying), dtype=torch.float64)
        for index, k in enumerate(varying):
            classifier = self._classifier(int(torch.randint(2**31, ()))).fit(z, factors[:, k])
            importance[:, index] = torch.from_numpy(np.abs(classifier.feature_importances_))
            right[:, index] = torch.from_numpy(classifier.predict(codes.z.numpy()) == codes.factors[:, k].numpy())
        name = "dci" if self.trees == "gradient_boosting" else "dci_forest"
        n = len(codes)
        values = {
            f"{name}_disentanglement": Estimate(disentanglement(importance), None, len(z), "of 1", "higher"),
            f"{name}_completeness": Estimate(completeness(importance), None, len(z), "of 1", "higher"),
            f"{name}_informativeness": Estimate.mean(right.mean(1), "of 1", "higher"),
        }
        how = (
            f"{self.trees} on the posterior's means of {len(z)} training examples, accuracy on {n}; no s.e. for D and C"
        )
        return Result(values, how, {"importance": importance.tolist(), "trees": self.trees, "num_train": len(z)})

    def _classifier(self, seed: int) -> Any:
        from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

        if self.trees == "gradient_boosting":
            return GradientBoostingClassifier(random_state=seed)
        return RandomForestClassifier(max_features=None, random_state=seed)  # else irrelevant codes gain importance
