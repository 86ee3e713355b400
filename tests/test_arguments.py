"""Arguments that do not exist, in Python: the nearest one that does."""

import copy
import importlib
import inspect
import pickle
import re
from pathlib import Path

import pytest
from torch import nn

import vaebench
from vaebench.core import Model
from vaebench.data.digits import Digits
from vaebench.distributions.likelihoods import Gaussian
from vaebench.distributions.priors import ConditionalGaussianPrior
from vaebench.distributions.quantizers.fsq import FSQ
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.hardware.device import Hardware
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.messages import NamedArguments
from vaebench.metrics.importance_bound import ImportanceBound
from vaebench.models.beta_vae import BetaVAE
from vaebench.models.vae import VAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import MLP, Conv, VAEEncoder
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.hmc import HamiltonianMonteCarlo
from vaebench.schedules import LinearScheduler
from vaebench.trainers import BaseTrainer
from vaebench.trainers.callbacks.checkpoint import Checkpoint


@pytest.mark.parametrize(
    ("kind", "name", "end"),
    [
        (BaseTrainer, "lr", "did you mean 'learning_rate'?"),
        (HamiltonianMonteCarlo, "stepsize", "did you mean 'step_size'?"),
        (HamiltonianMonteCarlo, "n_leapfrog", "did you mean 'num_leapfrog'?"),
        (GaussianMixtureSampler, "n_components", "did you mean 'num_components'?"),
        (Digits, "frac", "valid names: binarization, num_examples, num_test, num_validation, root"),
        (VAE, "latent_size", "did you mean 'latent_dim'?"),
        (BetaVAE, "bta", "did you mean 'beta'?"),
        (VQVAE, "num_embedding", "did you mean 'num_embeddings'?"),
        (MLP, "layers", "did you mean 'hidden_dims'?"),
        (Conv, "filters", "did you mean 'channels'?"),
        (Checkpoint, "every", "did you mean 'every_seconds'?"),
        (HMCKernel, "jiter", "did you mean 'jitter'?"),
        (Gaussian, "learn", "did you mean 'learn_scale'?"),
        (ImportanceBound, "n_samples", "did you mean 'num_samples'?"),
        (Hardware, "num_gpus", "did you mean 'num_devices'?"),
        (LinearScheduler, "n_step", "did you mean 'n_steps'?"),
        (GaussianEnergy, "covarience", "did you mean 'covariance'?"),
        (ConditionalGaussianPrior, "log_var_bnd", "did you mean 'log_var_bound'?"),
        (FSQ, "level", "did you mean 'levels'?"),
        (VAEEncoder, "latents", "did you mean 'latent_dim'?"),
    ],
)
def test_an_argument_that_does_not_exist_is_answered_with_the_nearest(kind, name, end):
    with pytest.raises(TypeError) as caught:
        kind(**{name: 1})
    assert str(caught.value) == f"{kind.__name__} has no argument '{name}'; {end}"


def test_every_class_of_the_configuration_answers_so():
    folder = Path(vaebench.__file__).parents[1] / "conf"
    text = "\n".join(path.read_text() for path in folder.rglob("*.yaml"))
    names = sorted(set(re.findall(r"_target_: (vaebench\.\S+)", text)))
    kinds = [getattr(importlib.import_module(module), name) for module, _, name in (n.rpartition(".") for n in names)]
    assert len(kinds) > 100
    assert [kind for kind in kinds if not issubclass(kind, NamedArguments)] == []


def test_arguments_by_another_name_and_those_that_are_passed_on_are_taken():
    model = BetaVAE((4,), likelihood="gaussian", latent_dim=3, kl_weight=2.0)
    assert (model.latent_dim, model.beta(0)) == (3, 2.0)
    assert HamiltonianMonteCarlo(num_leapfrog=3, step_size=0.1, num_chains=5).num_chains == 5


def test_a_class_of_ones_own_that_takes_any_argument_is_left_alone():
    class Own(Model):
        def __init__(self, width, **options):
            super().__init__()
            self.layer, self.options = nn.Linear(width, 1), options

    assert Own(width=2, anything=3).options == {"anything": 3}


def test_signature_copies_and_pickles_are_those_of_a_plain_class():
    assert list(inspect.signature(Checkpoint).parameters) == ["every_seconds"]
    assert list(inspect.signature(BaseTrainer).parameters)[:3] == ["num_epochs", "num_steps", "batch_size"]
    model = VAE((4,), likelihood="gaussian")
    assert copy.deepcopy(model).latent_dim == model.latent_dim
    assert pickle.loads(pickle.dumps(MLP((3,)))) == MLP((3,))
    assert BaseTrainer(learning_rate=0.1) == BaseTrainer(learning_rate=0.1)
