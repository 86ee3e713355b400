"""Metrics that read labels off codes: on classes that lie apart, and on labels that the codes do not know."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.metrics.codes import measured, transparent
from vaebench.data.dataset import Dataset
from vaebench.data.split import DataSplit
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.clustering import Clustering, matched
from vaebench.metrics.knn import KNN
from vaebench.metrics.linear_probe import LinearProbe

CASES = [
    (LinearProbe(), "linear_probe_accuracy"),
    (KNN(), "knn_accuracy"),
    (Clustering(2), "cluster_accuracy"),
]


def data(n=900, apart=20.0, known=True):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 0.0], [apart, 0.0], [0.0, apart]])
    seen = y if known else torch.randint(3, (n,), generator=generator)
    return Dataset.from_tensors(centres[seen] + torch.randn(n, 2, generator=generator), y=y, scale=1, test_fraction=0.5)


def judged(metric, dataset):
    return metric(transparent(2), dataset.test, dataset=dataset, batch_size=1000)


@pytest.mark.parametrize(("metric", "name"), CASES)
def test_classes_that_lie_apart_are_told(metric, name):
    found = judged(metric, data()).values
    assert found[name].value > 0.995
    assert found[name].n == 450
    assert found[name].per_example.shape == (450,)
    if name == "cluster_accuracy":
        assert found["nmi"].value > 0.97
        assert found["ari"].value > 0.97


@pytest.mark.parametrize(("metric", "name"), CASES)
def test_labels_that_the_codes_do_not_know_are_guessed(metric, name):
    found = judged(metric, data(known=False)).values
    assert found[name].value == pytest.approx(1 / 3, abs=5 * math.sqrt(2 / 9 / 450))
    if name == "cluster_accuracy":
        assert abs(found["ari"].value) < 0.02
        assert found["nmi"].value < 0.03


def test_a_ring_around_a_point_is_for_neighbours_and_not_for_lines():
    angle = torch.rand(600) * 2 * math.pi
    y = torch.arange(600) % 2
    x = (1 + 9 * y)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    dataset = Dataset.from_tensors(x, y=y, scale=1)
    assert judged(KNN(), dataset).values["knn_accuracy"].value == 1
    assert judged(LinearProbe(), dataset).values["linear_probe_accuracy"].value < 0.8


def test_a_class_counts_for_one_cluster_only():
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert matched(np.array([2, 2, 0, 0, 1, 1]), labels).tolist() == [False, False, True, True, True, True] or matched(
        np.array([2, 2, 0, 0, 1, 1]), labels
    ).tolist() == [True, True, False, False, True, True]
    assert matched(np.array([1, 1, 1, 1, 0, 0]), labels).all()
    assert matched(np.array([0, 0, 0, 0, 0, 0]), labels).sum() == 4


def test_what_they_are_fitted_to_must_be_there():
    z, y = torch.randn(30, 2), torch.arange(30) % 2
    with pytest.raises(NotApplicableError, match="fitted to the train split, which is not there"):
        measured(KNN(), z, y=y)
    with pytest.raises(NotApplicableError, match="no labels"):
        KNN()(transparent(2), DataSplit(z))
    small = Dataset.from_tensors(torch.randn(20, 2), y=torch.arange(20) % 2, scale=1, test_fraction=0.6)
    with pytest.raises(NotApplicableError, match="fewer training examples than k = 50"):
        judged(KNN(50), small)
