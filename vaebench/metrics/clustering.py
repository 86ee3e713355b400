"""Whether clusters of codes are classes."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import torch

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject


def matched(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say for each example whether its cluster's class is its own, under the best matching of clusters and classes.

    The matching is one to one (Kuhn, 1955), so that a class counts for one cluster only.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    size = int(max(clusters.max(), labels.max())) + 1
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (clusters, labels), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    class_of = np.empty(size, dtype=np.int64)
    class_of[rows] = columns
    return np.asarray(class_of[clusters] == labels)


class Clustering(Metric):
    """Agreement of k-means clusters of codes with classes: accuracy, NMI and ARI (Xie et al., 2016).

    k-means has as many clusters as there are classes, the best of 10 starts; codes are the means of q(z|x). Accuracy is
    under the best one-to-one matching; NMI is normalised by the arithmetic mean of the entropies.

    References:
        Unsupervised Deep Embedding for Clustering Analysis (Xie et al., 2016), https://arxiv.org/abs/1511.06335
    Args:
        num_starts: Starts of k-means, >= 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "labels"})

    def __init__(self, num_starts: int = 10) -> None:
        check_range("num_starts", num_starts, at_least=1, whole=True)
        self.num_starts = num_starts

    def measure(self, subject: Subject) -> Result:
        """Return cluster_accuracy, nmi and ari."""
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        codes = subject.codes()
        assert codes.y is not None
        labels = codes.y.numpy()
        num_classes = getattr(subject.dataset, "num_classes", None) or int(labels.max()) + 1
        if len(codes) < num_classes:
            raise NotApplicableError(f"there are fewer examples than the {num_classes} classes; raise num_examples")
        seed = int(torch.randint(2**31, ()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer distinct codes than clusters
            clusters = KMeans(num_classes, n_init=self.num_starts, random_state=seed).fit_predict(codes.z.numpy())
        right = torch.from_numpy(matched(clusters, labels)).double()
        values = {
            "cluster_accuracy": Estimate.mean(right, "of 1", "higher"),
            "nmi": Estimate(float(normalized_mutual_info_score(labels, clusters)), None, len(codes), "of 1", "higher"),
            "ari": Estimate(float(adjusted_rand_score(labels, clusters)), None, len(codes), "of 1", "higher"),
        }
        how = f"k-means with {num_classes} clusters on the posterior's means, best of {self.num_starts} starts"
        return Result(values, how, {"num_clusters": num_classes})
