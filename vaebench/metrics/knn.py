"""How well the nearest neighbours among the codes tell labels."""

from __future__ import annotations

from typing import ClassVar

import torch

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.probing import labelled, standardized


class KNN(Metric):
    """Accuracy of the majority among the k nearest training codes (Cover and Hart, 1967).

    Codes are the standardised means of q(z|x); distances are Euclidean.

    References:
        Nearest Neighbor Pattern Classification (Cover and Hart, 1967), https://doi.org/10.1109/TIT.1967.1053964
    Args:
        k: Neighbours, >= 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "labels"})

    def __init__(self, k: int = 5) -> None:
        check_range("k", k, at_least=1, whole=True)
        self.k = k

    def measure(self, subject: Subject) -> Result:
        """Return knn_accuracy."""
        from sklearn.neighbors import KNeighborsClassifier

        codes, train = subject.codes(), labelled(subject, "train")
        assert codes.y is not None
        assert train.y is not None
        if len(train) < self.k:
            raise NotApplicableError(f"there are fewer training examples than k = {self.k}")
        z_train, z_test = standardized(train.z, codes.z)
        classifier = KNeighborsClassifier(self.k).fit(z_train, train.y.numpy())
        right = torch.from_numpy(classifier.predict(z_test) == codes.y.numpy()).double()
        return Result(
            {"knn_accuracy": Estimate.mean(right, "of 1", "higher")},
            f"{self.k} nearest of the posterior's means of {len(train)} training examples",
            {"num_train": len(train), "k": self.k},
        )
