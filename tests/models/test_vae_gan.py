"""VAE/GAN: the training algorithm by hand, and the direction of each part's step."""

import math
from types import SimpleNamespace

import pytest
import torch

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian
from vaebench.models.vae_gan import VAEGAN
from vaebench.networks import MLP, Conv
from vaebench.trainers.coupled_adversarial import CoupledOptimizerAdversarialTrainer

GAMMA = 0.3
FEATURES = 8


def small(gamma=GAMMA, **arguments):
    return VAEGAN(
        (6,),
        likelihood=Bernoulli(),
        latent_dim=2,
        network=MLP(hidden_dims=(8,)),
        discriminator=MLP(hidden_dims=(FEATURES,), activation="tanh"),
        gamma=gamma,
        **{"feature_scale": 1.0, **arguments},
    ).double()


@pytest.fixture
def x():
    return torch.rand(5, 6, dtype=torch.float64).round()


def pictures(model, x, seed):
    """The posterior, reconstructions, and decoded draws from the prior."""
    torch.manual_seed(seed)
    q = model.posterior(x)
    z = q.rsample()
    z_p = torch.randn(5, 2, dtype=x.dtype)
    return q, torch.sigmoid(model.decoder(z)), torch.sigmoid(model.decoder(z_p))


def algorithm_1(model, x, seed):
    """The three losses, each written out from the paper."""
    q, x_tilde, x_p = pictures(model, x, seed)
    prior = 0.5 * (q.mean.square() + q.variance - q.log_var - 1).sum(1).mean()
    h, h_tilde = model.discriminator.trunk(x), model.discriminator.trunk(x_tilde)
    llike = 0.5 * (h - h_tilde).square().sum(1).mean() + FEATURES / 2 * math.log(2 * math.pi)
    D, D_tilde, D_p = (torch.sigmoid(model.discriminator(picture)) for picture in (x, x_tilde, x_p))
    gan = -(D.log() + (1 - D_tilde).log() + (1 - D_p).log()).mean()
    return {"encoder": prior + llike, "decoder": model.gamma * llike - gan, "discriminator": gan}


def losses(model, x, seed, part=None):
    torch.manual_seed(seed)
    return model.losses(Batch(x), 0, part)


def gradients(model, totals):
    """The gradient of each part's loss in its own parameters."""
    found = {}
    for name, modules in model.parts().items():
        parameters = [p for module in modules for p in module.parameters()]
        found[name] = torch.autograd.grad(totals[name], parameters, retain_graph=True)
    return found


def step(model, x, seed, part, rate):
    """One step of gradient descent of a part on its own loss."""
    own = gradients(model, {name: loss.total for name, loss in losses(model, x, seed).items()})[part]
    parameters = [p for module in model.parts()[part] for p in module.parameters()]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter -= rate * gradient


def test_losses_and_gradients_are_those_of_algorithm_1(x):
    model = small()
    ours = {name: loss.total for name, loss in losses(model, x, seed=1).items()}
    paper = algorithm_1(model, x, seed=1)
    for name in paper:
        torch.testing.assert_close(ours[name], paper[name])
    for name, expected in gradients(model, paper).items():
        for gradient, other in zip(gradients(model, ours)[name], expected, strict=True):
            torch.testing.assert_close(gradient, other)


def test_the_trainer_follows_algorithm_1_in_all_three_parts_at_once(x):
    model, x = small().float(), x.float()
    own = gradients(model, algorithm_1(model, x, seed=7))
    expected = {
        name: [
            p.detach() - 0.1 * g for p, g in zip((p for m in modules for p in m.parameters()), own[name], strict=True)
        ]
        for name, modules in model.parts().items()
    }
    trainer = CoupledOptimizerAdversarialTrainer(batch_size=5, num_epochs=1, learning_rate=0.1, optimizer="SGD")
    training = trainer.start(model, SimpleNamespace(train=DataSplit(x), validation=DataSplit(x)))
    torch.manual_seed(7)
    training.train_step(Batch(x))
    for name, modules in model.parts().items():
        for parameter, value in zip((p for m in modules for p in m.parameters()), expected[name], strict=True):
            torch.testing.assert_close(parameter.detach(), value)


def test_the_decoders_step_makes_its_pictures_look_real(x):
    model = small(gamma=0.0)

    def belief():
        _, x_tilde, x_p = pictures(model, x, seed=2)
        return model.discriminator(x_tilde).mean() + model.discriminator(x_p).mean()

    before = belief()
    step(model, x, 2, "decoder", rate=1e-3)
    assert belief() > before


def test_the_discriminators_step_tells_them_apart(x):
    model = small()

    def gap():
        _, x_tilde, x_p = pictures(model, x, seed=3)
        return 2 * model.discriminator(x).mean() - model.discriminator(x_tilde).mean() - model.discriminator(x_p).mean()

    before = gap()
    step(model, x, 3, "discriminator", rate=1e-3)
    assert gap() > before


def test_the_encoder_does_not_see_the_discriminators_verdict(x):
    model = small()
    own = gradients(model, {name: loss.total for name, loss in losses(model, x, seed=4).items()})["encoder"]
    with torch.no_grad():
        model.discriminator.head.weight.mul_(-5)
        model.discriminator.head.bias.add_(2)
    other = gradients(model, {name: loss.total for name, loss in losses(model, x, seed=4).items()})["encoder"]
    for gradient, same in zip(own, other, strict=True):
        assert torch.equal(gradient, same)


def test_the_discriminator_is_not_trained_to_have_alike_features(x):
    model = small()
    _, x_tilde, x_p = pictures(model, x, seed=5)
    parameters = list(model.discriminator.parameters())
    belief = torch.cat([-model.discriminator(x), model.discriminator(x_tilde), model.discriminator(x_p)])
    expected = torch.autograd.grad(torch.nn.functional.softplus(belief).sum() / 5, parameters, retain_graph=True)
    own = gradients(model, {name: loss.total for name, loss in losses(model, x, seed=5).items()})["discriminator"]
    for gradient, other in zip(own, expected, strict=True):
        torch.testing.assert_close(gradient, other)


def test_gamma_weighs_the_reconstruction(x):
    weak, strong = small(gamma=0.0), small(gamma=2.0)
    strong.load_state_dict(weak.state_dict())
    difference = losses(strong, x, 6)["decoder"].total - losses(weak, x, 6)["decoder"].total
    torch.testing.assert_close(difference, 2.0 * losses(weak, x, 6)["encoder"].terms["dissimilarity"])


def test_the_elbo_is_that_of_the_pixels(x):
    model = small()
    loss = model.validation_loss(Batch(x), 0)
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + loss.terms["rate"])
    assert model.log_weights(x, 3).shape == (3, 5)
    torch.manual_seed(1)
    z = model.posterior(x).rsample()
    torch.manual_seed(1)
    pixels = torch.nn.functional.binary_cross_entropy_with_logits(model.decoder(z), x, reduction="none").sum(1)
    torch.testing.assert_close(model.distortion_and_rate(x)[0], pixels)


def test_pictures_of_a_continuous_bernoulli_can_be_black_and_white():
    model = VAEGAN((6,), likelihood=ContinuousBernoulli(), latent_dim=2)
    z = torch.randn(3, 2)
    with torch.no_grad():
        logits = model.decoder(z)
        torch.testing.assert_close(model.decode(z), torch.sigmoid(logits))
        model.decoder[-2].bias.copy_(torch.tensor([-9.0, 9.0] * 3))
        assert (model.decode(z) - torch.tensor([0.0, 1.0] * 3)).abs().max() < 0.01
        assert model.likelihood(z).mean.min() > 0.05


def test_grey_pictures_with_a_black_background_are_reconstructed():
    x = torch.zeros(36, 1, 8, 8)
    for n in range(36):
        x[n, :, n // 6 : n // 6 + 3, n % 6 : n % 6 + 3] = 1
    data = SimpleNamespace(train=DataSplit(x.repeat(10, 1, 1, 1)), validation=DataSplit(x))
    torch.manual_seed(0)
    networks = {"network": MLP((64,)), "discriminator": MLP((128,))}
    model = VAEGAN((1, 8, 8), likelihood=ContinuousBernoulli(), latent_dim=4, **networks)
    options = {"batch_size": 36, "num_steps": 400, "learning_rate": 3e-3, "validate_every": None, "keep_best": None}
    CoupledOptimizerAdversarialTrainer(**options).train(model, data)
    # 0.025 to 0.030 over seeds, and 0.066 to 0.121 where the pictures are the distribution's mean.
    error = (model.eval().reconstruct(x) - x).square().mean()
    assert error < 0.4 * (x - x.mean(0)).square().mean()


@pytest.mark.parametrize(
    ("shape", "network"), [((1, 8, 8), MLP()), ((3, 13, 22), Conv(channels=(4, 8), hidden_dim=16)), ((5,), MLP())]
)
def test_any_shape(shape, network):
    model = VAEGAN(shape, likelihood=Gaussian(), network=network, discriminator=network)
    batch = Batch(torch.rand(4, *shape))
    found = model.losses(batch, 0)
    assert all(math.isfinite(loss.total.item()) for loss in found.values())
    assert list(found) == list(model.parts())
    assert list(model.losses(batch, 0, "decoder")) == ["decoder"]


def test_refuses_what_it_cannot_train():
    with pytest.raises(ValueError, match=r"learned parameter .* likelihood.learn_scale=false"):
        VAEGAN((6,), likelihood=Gaussian(learn_scale=True))
    with pytest.raises(ValueError, match="gamma must be at least 0 and finite; got -1"):
        small(gamma=-1)


def test_the_scale_of_the_features_divides_their_distance(x):
    unit, half = (small(feature_scale=scale) for scale in (1.0, 0.5))
    half.load_state_dict({k: v for k, v in unit.state_dict().items() if "log_scale" not in k}, strict=False)
    terms = []
    for model in (unit, half):
        torch.manual_seed(1)
        terms.append(model.losses(Batch(x), 0)["encoder"].terms)
    constant = FEATURES * 0.5 * math.log(2 * math.pi)
    squared = terms[0]["dissimilarity"] - constant
    by_hand = 4 * squared + constant - FEATURES * math.log(2)
    torch.testing.assert_close(terms[1]["dissimilarity"], by_hand)
    torch.testing.assert_close(terms[0]["rate"], terms[1]["rate"])


def test_no_validation_metric_says_which_weights_are_best():
    assert VAEGAN.best_criterion is None
