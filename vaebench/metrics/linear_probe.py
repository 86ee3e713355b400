"""How well a linear classifier reads labels off the codes."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch

from vaebench.metrics.base import Estimate, Metric, Result, Subject
from vaebench.metrics.probing import labelled, standardized

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse penalty weights; the validation split picks one


class LinearProbe(Metric):
    """Accuracy of logistic regression from codes to labels (Alain and Bengio, 2017).

    Fitted to the standardised means of q(z|x) of the training split, with the strength of its L2 penalty chosen on the
    validation split, and judged on the evaluated examples.

    References:
        Understanding Intermediate Layers Using Linear Classifier Probes (Alain and Bengio, 2017),
        https://arxiv.org/abs/1610.01644
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "labels"})

    def measure(self, subject: Subject) -> Result:
        """Return linear_probe_accuracy."""
        from sklearn.linear_model import LogisticRegression

        codes, train, validation = subject.codes(), labelled(subject, "train"), labelled(subject, "validation")
        assert codes.y is not None
        assert train.y is not None
        assert validation.y is not None
        z_train, z_validation, z_test = standardized(train.z, validation.z, codes.z)
        best, strength = -1.0, STRENGTHS[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no convergence: each classifier is scored as it is
            for candidate in STRENGTHS:
                classifier = LogisticRegression(C=candidate, max_iter=500).fit(z_train, train.y.numpy())
                accuracy = float((classifier.predict(z_validation) == validation.y.numpy()).mean())
                if accuracy > best:
                    best, strength, chosen = accuracy, candidate, classifier
        right = torch.from_numpy(chosen.predict(z_test) == codes.y.numpy()).double()
        return Result(
            {"linear_probe_accuracy": Estimate.mean(right, "of 1", "higher")},
            f"logistic regression on the posterior's means of {len(train)} training examples, C = {strength:g} by the "
            "validation split",
            {"num_train": len(train), "C": strength},
        )
