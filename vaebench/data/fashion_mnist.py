"""Fashion-MNIST."""

from __future__ import annotations

from vaebench.data.dataset import Dataset
from vaebench.data.examples import hold_out
from vaebench.data.io.idx import read_idx_pair


class FashionMNIST(Dataset):
    """70,000 pictures of clothes of 28x28 grey pixels.

    x is k / 255 with k = 0..255, shape (1, 28, 28); labels are 0 to 9 (T-shirt, trouser, pullover, dress, coat, sandal,
    shirt, sneaker, bag, ankle boot). The 10,000 test pictures are the published ones; the validation pictures are drawn
    from the published 60,000 training ones by a fixed shuffle. Grey values suit a continuous Bernoulli; binarised ones
    a Bernoulli. Read from `<root>/FashionMNIST/raw/*.gz`, and downloaded to there where they are missing.

    References:
        Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms (Xiao et al., 2017),
        https://arxiv.org/abs/1708.07747, MIT licence.
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

    name = "fashion_mnist"

    def __init__(
        self,
        root: str = "data",
        num_validation: int = 10000,
        num_examples: int | None = None,
        binarization: str = "none",
    ) -> None:
        pool, test = read_idx_pair(root, "FashionMNIST")
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
