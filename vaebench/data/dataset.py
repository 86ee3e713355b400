"""The base of the data sets: shape, classes, three splits, and the likelihood that suits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from vaebench.data.binarization import check_binarization, make_split
from vaebench.data.examples import Examples, check_count, fill_parts, shuffled
from vaebench.data.io.values import check_scale, scan, understand
from vaebench.data.split import DataSplit
from vaebench.distributions import likelihoods
from vaebench.messages import NamedArguments, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

PARTS = ("train", "validation", "test")
# Options of conf/model/likelihood and their classes.
_CLASSES = {
    "bernoulli": "Bernoulli",
    "continuous_bernoulli": "ContinuousBernoulli",
    "gaussian": "Gaussian",
    "binomial": "Binomial",
    "discretized_logistic": "DiscretizedLogistic",
    "logistic_mixture": "LogisticMixture",
}


class Dataset(NamedArguments):
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

    name: ClassVar[str] = "tensors"

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
        classes = f"; {num_classes} class{'es' * (num_classes != 1)}" if num_classes else ""
        self.found = f"{self.name}: {found + '; ' if found else ''}{sizes}; shape {self.shape}{classes}"

    def __repr__(self) -> str:
        sizes = f"{len(self.train)}/{len(self.validation)}/{len(self.test)}"
        return f"{type(self).__name__}({sizes} x {self.shape}, {self.likelihood_name})"

    def describe(self) -> dict[str, Any]:
        """Return plain values for the record of a run: enough to recognise the data and to rebuild the model."""
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

    @classmethod
    def from_tensors(
        cls,
        x: Tensor | ArrayLike,
        y: Tensor | ArrayLike | None = None,
        *,
        context: Tensor | ArrayLike | None = None,
        factors: Tensor | ArrayLike | None = None,
        factor_names: Sequence[str] = (),
        likelihood: str | None = None,
        scale: float | Literal["auto"] = "auto",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        binarization: str = "none",
    ) -> Dataset:
        """Make a data set of tensors or arrays, divided by the fixed shuffle.

        Args:
            x: Images (N, C, H, W) or (N, H, W), or vectors (N, D). Whole numbers are k / 255, floats stay as they are,
                by the rule of `data.io.values`.
            y: Labels, whole numbers from 0, shape (N,).
            context: What a model is told about each example, shape (N, ...).
            factors: Ground-truth factors of variation, whole numbers from 0, shape (N, F).
            factor_names: Their names.
            likelihood: A file's name in conf/model/likelihood; by the values where it is None.
            scale: A value k stands for k / scale; auto decides by type and range.
            validation_fraction: Share that validates.
            test_fraction: Share that tests.
            binarization: none, threshold, dynamic or static; for values in [0, 1].

        Raises:
            ValueError: shapes do not belong together, values are not finite, labels or factors are not whole numbers
                from 0, or there are too few examples.

        >>> data = Dataset.from_tensors(torch.rand(50, 1, 8, 8), y=torch.arange(50) % 2)
        >>> len(data.train), data.shape, data.num_classes, data.likelihood_name
        (40, (1, 8, 8), 2, 'continuous_bernoulli')
        """
        x = _tensor("x", x)
        y, context, factors = (
            None if field is None else _tensor(name, field)
            for name, field in (("y", y), ("context", context), ("factors", factors))
        )
        if x.ndim not in (2, 3, 4):
            raise ValueError(f"x must have shape (N, D), (N, H, W) or (N, C, H, W); got {tuple(x.shape)}")
        if x.dtype.is_complex:
            raise ValueError(f"x must hold real numbers; got {x.dtype}")
        check_scale(scale)
        sizes = {name: _size_of(name, field, len(x)) for name, field in (("y", y), ("factors", factors))}
        if context is not None and len(context) != len(x):
            raise ValueError(f"context must have {len(x)} rows, one for each example; got {len(context)}")
        array = x.detach().cpu().to(torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype).numpy()
        values = understand(scan(array, "x"), "x", scale=scale, are_pictures=x.ndim > 2)
        if likelihood is not None and likelihood not in _CLASSES:
            raise ValueError(f"likelihood: there is no '{likelihood}'{did_you_mean(likelihood, _CLASSES)}")
        shape = (1, *x.shape[1:]) if x.ndim == 3 else tuple(x.shape[1:])
        pool = Examples(torch.from_numpy(values.convert(array)).reshape(len(x), *shape), y, context, factors)
        parts = fill_parts(
            {"train": pool}, validation_fraction=validation_fraction, test_fraction=test_fraction, where="x"
        )
        name, arguments = values.likelihood(shape)
        made = cls.__new__(cls)
        Dataset.__init__(
            made,
            *parts,
            likelihood_name=likelihood or name,
            likelihood_arguments=arguments if likelihood in (None, name) else {},
            scale=values.kept_scale,
            binarization=binarization,
            num_classes=None if y is None else sizes["y"][0],
            factor_names=factor_names or [str(k) for k in range(len(sizes["factors"]))],
            factor_sizes=sizes["factors"],
            found=f"x of shape {tuple(x.shape)}, {values.found}",
            cautions=[values.caution] if values.caution else (),
        )
        return made

    @property
    def likelihood(self) -> likelihoods.Likelihood:
        """A new module of the likelihood that suits the data."""
        return getattr(likelihoods, _CLASSES[self.likelihood_name])(**self._likelihood_arguments)

    def likelihood_config(self) -> dict[str, Any]:
        """The same likelihood as plain values, `_target_` and arguments."""
        return {"_target_": f"{likelihoods.__name__}.{_CLASSES[self.likelihood_name]}", **self._likelihood_arguments}


def _tensor(name: str, field: Tensor | ArrayLike) -> Tensor:
    try:
        return torch.as_tensor(field)
    except (TypeError, ValueError, RuntimeError) as error:
        came = f"{type(field).__name__}: {error}"
        raise ValueError(f"{name} must be a tensor, or an array of numbers; got {came}") from None


def _size_of(name: str, field: Tensor | None, num_examples: int) -> list[int]:
    """How many values each column takes, from 0 to its greatest; [] for nothing."""
    if field is None:
        return []
    columns = field[:, None] if name == "y" and field.ndim == 1 else field
    if columns.ndim != 2 or len(columns) != num_examples or (name == "y" and columns.shape[1] != 1):
        expected = "(N,)" if name == "y" else "(N, F)"
        raise ValueError(
            f"{name} must have shape {expected} with N = {num_examples}, one for each example; got {tuple(field.shape)}"
        )
    if columns.dtype.is_floating_point or columns.dtype.is_complex or bool((columns < 0).any()):
        raise ValueError(f"{name} must hold whole numbers from 0; got {field.dtype}")
    return [int(size) + 1 for size in columns.amax(0)] if num_examples else []
