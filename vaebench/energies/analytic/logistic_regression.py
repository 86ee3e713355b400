"""A logistic regression, with published moments of its posterior."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction, Reference
from vaebench.messages import check_range

DATA = Path(__file__).with_name("german_credit.npz")  # 1000 rows: 24 features and a class, 1 good or 2 bad


class LogisticRegressionEnergy(BaseEnergyFunction):
    r"""The posterior of 25 weights that tell bad credits from good ones: German credit data, numeric version.

    .. math:: U(w) = \sum_n \log(1 + e^{f_n^\top w}) - y_n f_n^\top w + \frac{|w|^2}{2 s^2}

    with y = 1 for the 300 bad credits of 1000, features of mean 0 and standard deviation 1, and a constant 1 as the
    last feature.

    References:
        Statlog (German Credit Data) (Hofmann, 1994), https://doi.org/10.24432/C5NC77, for the data;
        Inference Gym (Sountsov et al., 2020), https://pypi.org/project/inference_gym, target
        german_credit_numeric_logistic_regression, for the model and its moments, made there by long runs of Stan.
    Args:
        prior_scale: s > 0; the published moments are those of 1.
    """

    num_dims = 25
    features: Tensor
    classes: Tensor

    def __init__(self, prior_scale: float = 1.0) -> None:
        super().__init__()
        check_range("prior_scale", prior_scale, above=0, below=math.inf)
        self.prior_scale = prior_scale
        with np.load(DATA, allow_pickle=False) as file:
            table = torch.from_numpy(file["data"].astype(np.float64))
        raw = table[:, :-1]
        scaled = (raw - raw.mean(0)) / raw.std(0, correction=0)
        features = torch.cat([scaled, torch.ones_like(scaled[:, :1])], -1)
        self.register_buffer("features", features.to(torch.get_default_dtype()))
        self.register_buffer("classes", (table[:, -1] == 2).to(self.features))
        if prior_scale == 1:
            self.reference = Reference(torch.tensor(MEAN), torch.tensor(STANDARD_DEVIATION), torch.tensor(MEAN_ERROR))

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        logits = x @ self.features.mT
        distortion = torch.nn.functional.softplus(logits).sum(-1) - logits @ self.classes
        return distortion + 0.5 * x.square().sum(-1) / self.prior_scale**2

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient, in closed form."""
        logits = x @ self.features.mT
        distortion = torch.nn.functional.softplus(logits).sum(-1) - logits @ self.classes
        energy = distortion + 0.5 * x.square().sum(-1) / self.prior_scale**2
        return energy, (torch.sigmoid(logits) - self.classes) @ self.features + x / self.prior_scale**2


MEAN = (
    *(-0.7351048553686668, 0.41854235448568405, -0.4140361022849266, 0.12687262544490638, -0.36453584119271787),
    *(-0.1786990235929577, -0.1528721119830067, 0.0130935930161775, 0.18071618213137836, -0.11077840748059746),
    *(-0.22434837978228872, 0.12239538160879522, 0.028775849958589513, -0.13628208974727007, -0.29222110498210363),
    *(0.2783575897857832, -0.2996277708109526, 0.30372734184257766, 0.27038791575592425, 0.12251564641333557),
    *(-0.062930540861664, -0.09271734036278598, -0.025386265018982113, -0.022952091856998594, -1.2033366774193333),
)
MEAN_ERROR = (
    *(5.842293909946494e-05, 7.242951181494356e-05, 6.287678982885978e-05, 7.585193280148798e-05),
    *(6.115211849593741e-05, 6.021116416974708e-05, 5.204191507761724e-05, 5.860998969304511e-05),
    *(7.29503297927934e-05, 6.490239025755679e-05, 4.990373753354614e-05, 6.283413887066306e-05),
    *(5.430645722326503e-05, 6.406386782855579e-05, 7.892840871425272e-05, 5.308342894035861e-05),
    *(6.703376967839617e-05, 8.521129854167403e-05, 7.765561215475798e-05, 0.00010413139262019992),
    *(0.00010841073917598099, 6.237296545620734e-05, 9.654815236395932e-05, 9.49005719330975e-05),
    6.225181243823337e-05,
)
STANDARD_DEVIATION = (
    *(0.0898313720177512, 0.10433392890125515, 0.09494358976312321, 0.10821559696336329, 0.09451801286114327),
    *(0.09209986501802636, 0.08194570882231808, 0.09096249386093944, 0.10427142118193244, 0.09706664883314095),
    *(0.07886872456716118, 0.09415178440121623, 0.08568162266412561, 0.094635647710843, 0.11794843143366165),
    *(0.08278578466826157, 0.10338649406760281, 0.12112997506000497, 0.11129990766341216, 0.13748697192324197),
    *(0.14311733514054628, 0.09036915198426924, 0.12757406812435373, 0.12488837996746398, 0.09189586059142167),
)
