"""MNIST."""

from __future__ import annotations

from vaebench.data.dataset import Dataset
from vaebench.data.examples import hold_out
from vaebench.data.io.idx import read_idx_pair


class MNIST(Dataset):
    """70,000 handwritten digits of 28x28 grey pixels.

    x is k / 255 with k = 0..255, shape (1, 28, 28); labels are 0 to 9. The 10,000 test pictures are the published
    ones; the validation pictures are drawn from the published 60,000 training ones by a fixed shuffle. Grey values suit
    a continuous Bernoulli; binarised ones a Bernoulli. Read from `<root>/MNIST/raw/*.gz`, and downloaded to there where
    they are missing.

    References:
        Gradient-based learning applied to document recognition (LeCun et al., 1998),
        https://doi.org/10.1109/5.726791. Licence: none published with the original; commonly given as CC BY-SA 3.0.
        The quantitative analysis of deep belief networks (Salakhutdinov and Murray, 2008), for drawing binary pixels;
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519, for drawing them anew.
    Args:
        root: The folder of data sets.
        num_validation: How many of the training pictures validate.
        num_examples: Keep this many of the remaining training pictures; all by default.
        binarization: none, threshold (x > 0.5), static (drawn once), or dynamic (drawn for every training batch; the
            validation and test pictures once).
    Raises:
        ValueError: A file is missing and cannot be downloaded, or is damaged; a number of examples is more than there
            are; an unknown binarization.
    """

    name = "mnist"

    def __init__(
        self,
        root: str = "data",
        num_validation: int = 10000,
        num_examples: int | None = None,
        binarization: str = "none",
    ) -> None:
        pool, test = read_idx_pair(root, "MNIST")
        train, validation = hold_out(pool, num_validation=num_validation)
        super().__init__(
            train,
            validation,
            test,
            likelihood_name="continuous_bernoulli",
            binarization=binarization,
            num_examples=num_examples,
            num_classes=10,
        )
