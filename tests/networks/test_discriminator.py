"""The discriminator: a trunk and one logit."""

import pytest
import torch

from vaebench.networks import MLP, Conv
from vaebench.networks.discriminator import Discriminator


@pytest.mark.parametrize(("network", "shape"), [(MLP((7,)), (3,)), (Conv((4,), hidden_dim=7), (2, 5, 6))])
def test_one_logit_for_each_example_linear_in_the_features(network, shape):
    discriminator = Discriminator(network, shape)
    x = torch.randn(4, *shape)
    features = discriminator.trunk(x)
    assert features.shape == (4, 7)
    logit = discriminator(x)
    assert logit.shape == (4,)
    torch.testing.assert_close(logit, features @ discriminator.head.weight[0] + discriminator.head.bias[0])
    torch.testing.assert_close(logit, discriminator.logit(features))


def test_logits_are_float32_or_better():
    features = torch.randn(4, 7)
    discriminator = Discriminator(MLP((7,)), (3,))
    assert discriminator.bfloat16().logit(features.bfloat16()).dtype == torch.float32
    assert discriminator.double().logit(features.double()).dtype == torch.float64
