"""The separated attribute predictability."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import torch

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.probing import labelled, standardized

GROUPS = 10  # for the jackknife


class SAP(Metric):
    """Mean over factors of the gap between the two codes that predict it best (Kumar et al., 2018, section 3).

    A code predicts a factor by a linear support vector machine on this code alone, with balanced classes; its score is
    the balanced accuracy. Fitted to the means of q(z|x) of the training split. A linear machine on one number tells no
    class between two others, so that a perfect code of factors with more than two values stays below 1.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar et al., 2018),
        https://arxiv.org/abs/1711.00848;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359, for C = 0.01
    Args:
        num_train: Training examples that are used, >= 10; the first of the split.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "factors"})

    def __init__(self, num_train: int = 10000) -> None:
        check_range("num_train", num_train, at_least=10, whole=True)
        self.num_train = num_train

    def measure(self, subject: Subject) -> Result:
        """Return sap; the scores of all pairs are among the details."""
        from sklearn.svm import LinearSVC

        codes, train = subject.codes(), labelled(subject, "train")
        assert codes.factors is not None
        assert train.factors is not None
        z_train, z_test = standardized(train.z[: self.num_train], codes.z)
        factors, known = train.factors[: self.num_train].numpy(), codes.factors.numpy()
        varying = [k for k in range(factors.shape[1]) if len(np.unique(factors[:, k])) > 1]
        if not varying:
            raise NotApplicableError("no factor varies among the training examples")
        right = np.zeros((z_train.shape[1], len(varying), len(codes)), dtype=bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no convergence: the SVM is scored as it is
            for d in range(z_train.shape[1]):
                for index, k in enumerate(varying):
                    machine = LinearSVC(C=0.01, class_weight="balanced", dual=False)
                    machine.fit(z_train[:, d : d + 1], factors[:, k])
                    right[d, index] = machine.predict(z_test[:, d : d + 1]) == known[:, k]
        rows = np.arange(len(codes)) % GROUPS
        value, scores = _gap(right, known[:, varying])
        left_out = [_gap(right[..., rows != g], known[rows != g][:, varying])[0] for g in range(GROUPS)]
        return Result(
            {"sap": Estimate.jackknife(value, left_out, len(codes), "of 1", "higher")},
            f"balanced accuracy of linear machines on single codes, fitted to {len(z_train)} training examples; s.e. "
            "by a jackknife over 10 groups of examples",
            {"score_per_code_and_factor": scores.tolist()},
        )


def _gap(right: np.ndarray, factors: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean gap of the two best codes, and the balanced accuracies, shape (D, F), from hits of shape (D, F, N)."""
    num_codes, num_factors, _ = right.shape
    scores = np.zeros((num_codes, num_factors))
    for k in range(num_factors):
        classes = [right[:, k, factors[:, k] == value].mean(1) for value in np.unique(factors[:, k])]
        scores[:, k] = np.mean(classes, axis=0)
    padded = np.concatenate([scores, np.zeros((1, num_factors))]) if num_codes == 1 else scores
    best = torch.from_numpy(padded).topk(2, dim=0).values
    return float((best[0] - best[1]).mean()), scores
