"""What every data set declares: shape, classes, three splits, and the likelihood that suits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vaebench.data.binarization import check_binarization, make_split
from vaebench.data.examples import Examples, check_count, shuffled
from vaebench.data.split import DataSplit
from vaebench.distributions import likelihoods

PARTS = ("train", "validation", "test")
# Names of the files in conf/model/likelihood, and their classes.
_CLASSES = {
    "bernoulli": "Bernoulli",
    "continuous_bernoulli": "ContinuousBernoulli",
    "gaussian": "Gaussian",
    "binomial": "Binomial",
    "discretized_logistic": "DiscretizedLogistic",
}


class Dataset:
    """Base of the data sets: their constructors find the examples and call this one.

    Attributes:
        name: The data set's name, as in `dataset=<name>`.
        train: Examples to fit.
        validation: Examples to choose by.
        test: Examples to report on.
        shape: Shape of one example: (C, H, W), or (D,) for vectors.
        num_classes: How many classes the labels count, or None where there are no labels.
        likelihood_name: The suitable likelihood's file in conf/model/likelihood.
        factor_names: Names of the ground-truth factors of variation, in the order of `Batch.factors`; () without.
        factor_sizes: How many values each of them takes.
        found: What was found where the data lie, one line: shapes, types, ranges, files left out.
        cautions: What is ambiguous about the data, each a sentence with the key that settles it.

    Args:
        train: Training examples.
        validation: Validation examples.
        test: Test examples.
        likelihood_name: The likelihood that suits the values as they are; binarised ones take `bernoulli`.
        likelihood_arguments: Its constructor's arguments.
        scale: A stored uint8 value k stands for k / scale.
        binarization: none, threshold, dynamic or static; see `vaebench.data.binarization.make_split`.
        num_examples: Keep this many of the training examples, chosen by the fixed shuffle; all by default.
        num_classes: How many classes there are.
        factor_names: As above.
        factor_sizes: As above.
        found: As above; by default the shapes alone.
        cautions: As above.
    """

    name: ClassVar[str]

    def __init__(
        self,
        train: Examples,
        validation: Examples,
        test: Examples,
        *,
        likelihood_name: str,
        likelihood_arguments: Mapping[str, Any] | None = None,
        scale: float = 255.0,
        binarization: str = "none",
        num_examples: int | None = None,
        num_classes: int | None = None,
        factor_names: Sequence[str] = (),
        factor_sizes: Sequence[int] = (),
        found: str = "",
        cautions: Sequence[str] = (),
    ) -> None:
        check_binarization(binarization)
        if num_examples is not None:
            check_count("dataset.num_examples", num_examples, least=1, most=len(train))

        def split(examples: Examples, part: str) -> DataSplit:
            return make_split(examples, scale=scale, binarization=binarization, part=part)

        self.train = split(train, "train")
        if num_examples is not None and num_examples < len(train):
            self.train = self.train.subset(shuffled(len(train))[:num_examples])
        self.validation = split(validation, "validation")
        self.test = split(test, "test")
        self.shape = train.shape
        self.num_classes = num_classes
        self.factor_names, self.factor_sizes = tuple(factor_names), tuple(factor_sizes)
        self.cautions = tuple(cautions)
        self.likelihood_name = likelihood_name if binarization == "none" else "bernoulli"
        self._likelihood_arguments = dict(likelihood_arguments or {}) if binarization == "none" else {}
        sizes = ", ".join(f"{len(getattr(self, part))} {part}" for part in PARTS)
        self.found = f"{self.name}: {found + '; ' if found else ''}{sizes}; shape {self.shape}"

    def __repr__(self) -> str:
        sizes = f"{len(self.train)}/{len(self.validation)}/{len(self.test)}"
        return f"{type(self).__name__}({sizes} x {self.shape}, {self.likelihood_name})"

    def describe(self) -> dict[str, Any]:
        """What a run keeps of its data, as plain values: enough to know them again, and to rebuild its model."""
        splits = {part: getattr(self, part) for part in PARTS}
        return {
            "name": self.name,
            "found": self.found,
            "cautions": list(self.cautions),
            "shape": list(self.shape),
            "num_classes": self.num_classes,
            "splits": {
                part: {"num_examples": len(split), "sha256": split.fingerprint()} for part, split in splits.items()
            },
        }

    @property
    def likelihood(self) -> likelihoods.Likelihood:
        """A new module of the likelihood that suits the data."""
        return getattr(likelihoods, _CLASSES[self.likelihood_name])(**self._likelihood_arguments)

    def likelihood_config(self) -> dict[str, Any]:
        """The same likelihood as plain values, `_target_` and arguments."""
        return {"_target_": f"{likelihoods.__name__}.{_CLASSES[self.likelihood_name]}", **self._likelihood_arguments}
