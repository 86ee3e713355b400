from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tests import composing
from vaebench import factory
from vaebench.distributions.likelihoods import Binomial, Gaussian
from vaebench.factory.recipes import recipe
from vaebench.models import RHVAE, VAE


def composed(*words: str, verb: str = "train") -> DictConfig:
    return composing.composed(verb, *words)


@pytest.fixture(scope="module")
def digits() -> Any:
    return factory.dataset(composed())


def test_the_default_experiment_is_built(digits):
    cfg = composed()
    model = factory.model(cfg, digits)
    assert type(model) is VAE
    assert model.shape == (1, 8, 8)
    assert isinstance(model.likelihood_head, Binomial)
    assert factory.trainer(cfg).name == "base"
    assert factory.hardware(cfg).device == "auto"
    assert [type(made).__name__ for made in factory.callbacks(cfg)] == [
        "ProgressBarCallback",
        "ImagesCallback",
        "Checkpoint",
    ]


def test_values_reach_the_constructors(digits):
    cfg = composed(
        "model=rhvae", "model.latent_dim=3", "model.metric_network.hidden_dims=[7,5]", "trainer.batch_size=9"
    )
    model = factory.model(cfg, digits)
    assert type(model) is RHVAE
    assert model.latent_dim == 3
    assert {tuple(p.shape) for p in model.parameters()} >= {(7, 64), (5, 7)}
    assert factory.trainer(cfg).batch_size == 9


def test_auto_is_the_data_sets_own_likelihood_and_the_record_says_which(digits):
    tree = factory.with_likelihood(composed(), digits)
    assert tree["model"]["likelihood"] == {
        "_target_": "vaebench.distributions.likelihoods.Binomial",
        "total_count": 16,
    }
    assert factory.with_likelihood(tree, digits) == tree
    torch.manual_seed(0)
    first = factory.model(composed(), digits).state_dict()
    torch.manual_seed(0)
    second = factory.model(tree, digits).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_chosen_likelihood_stays(digits):
    model = factory.model(composed("model/likelihood=gaussian", "model.likelihood.scale=0.5"), digits)
    assert isinstance(model.likelihood_head, Gaussian)


def test_metrics_and_callbacks_keep_names_and_order():
    cfg = composed("metric=[reconstruction,elbo]", verb="evaluate")
    assert list(factory.metrics(cfg)) == ["reconstruction", "elbo"]
    assert [type(c).__name__ for c in factory.callbacks(composed("callback=[progress,ema]"))] == [
        "ProgressBarCallback",
        "ImagesCallback",
        "Checkpoint",
        "EMA",
    ]


def test_the_sampler_comes_with_its_target():
    sampler = factory.sampler(composed("sampler=hmc", "target=prior", verb="sample"))
    assert type(sampler.target).__name__ == "PriorTarget"


def test_the_configuration_is_not_changed(digits):
    cfg = composed()
    before = OmegaConf.to_yaml(cfg)
    factory.check(cfg)
    factory.with_likelihood(cfg, digits)
    factory.model(cfg, digits)
    assert OmegaConf.to_yaml(cfg) == before


LIKELIHOODS = "a Likelihood or one of bernoulli, continuous_bernoulli, discretized_logistic, gaussian, logistic_mixture"
MISTAKES = {
    ("model.latent_dim=abc",): "model.latent_dim: expected an integer, got 'abc'",
    ("model.latent_dim=1.5",): "model.latent_dim: expected an integer, got 1.5",
    ("model.latent_dim=null",): "model.latent_dim: expected an integer, got null",
    ("model.latent_dim=true",): "model.latent_dim: expected an integer, got true",
    ("model.latent_dim=[3]",): "model.latent_dim: expected an integer, got [3]",
    ("+model.latnt_dim=3",): "model.latnt_dim: VAE has no such setting; did you mean 'latent_dim'?",
    ("+model.network.hidden_dim=[3]",):
        "model.network.hidden_dim: MLP has no such setting; did you mean 'hidden_dims'?",
    ("+model.prior.scale=3",):
        "model.prior.scale: StandardNormalPrior has no such setting; StandardNormalPrior takes no settings",
    ("model.network.hidden_dims=[1,x]",): "model.network.hidden_dims[1]: expected an integer, got 'x'",
    ("model.network=null",): "model.network: expected a Network, got null",
    ("model.network=mlp",): "model.network: expected a Network, got 'mlp'; choose one with model/network=mlp",
    ("~model.likelihood._target_",): f"model.likelihood: expected {LIKELIHOODS}, got a dict",
    ("model.likelihood=null",): f"model.likelihood: expected {LIKELIHOODS}, got null",
    ("model/likelihood=binomial",):
        "model.likelihood.total_count: a value is needed; set model.likelihood.total_count=",
    ("+model.likelihood.scale=3",): "model.likelihood.scale: 'auto' takes no settings; choose model/likelihood=",
    ("~model._target_",): "model: expected a mapping with a '_target_', got dict; choose one: model=",
    ("model.latent_dim=${nowhere}",):
        "Interpolation key 'nowhere' not found full_key: model.latent_dim object_type=dict",
    ("trainer.num_epochs=many",): "trainer.num_epochs: expected an integer, got 'many'",
    ("trainer.learning_rate=.nan",): "trainer.learning_rate: expected a number, got '.nan'",
    ("trainer.optimizer_args=[1]",): "trainer.optimizer_args: expected a mapping, got [1]",
    ("dataset.root=12",): "dataset.root: expected a string, got 12; quote it: dataset.root=\"'12'\"",
    ("hardware.compile=1",): "hardware.compile: expected true or false, got 1",
    ("seed=abc",): "seed: expected an integer, got 'abc'",
    ("seed=1.5",): "seed: expected an integer, got 1.5",
    ("model=aae", "trainer=base"): "trainer: model AAE needs trainer=adversarial, got trainer=base",
    ("trainer=adversarial",): "trainer: model VAE needs trainer=base, got trainer=adversarial",
    ("++callback=[progress]",): None,
}  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), MISTAKES.items(), ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_sentence_with_its_key(words, sentence):
    if sentence is None:
        cfg: Any = {**factory.plain(composed()), "callback": ["progress"]}
        sentence = "callback: expected settings by name, got list; choose callback=[a,b]"
    else:
        cfg = composed(*words)
    with pytest.raises(factory.ConfigError) as caught:
        factory.check(cfg)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("model", ["vae", "aae", "rhvae"])
@pytest.mark.parametrize(
    ("part", "other", "sentence"),
    [
        ("network", "posterior", "model.network: expected a Network, got a DiagonalGaussianPosterior"),
        ("posterior", "prior", "model.posterior: expected a Posterior, got a StandardNormalPrior"),
        ("prior", "posterior", "model.prior: expected a Prior, got a DiagonalGaussianPosterior"),
        ("likelihood", "network", f"model.likelihood: expected {LIKELIHOODS}, got a MLP"),
    ],
)
def test_a_part_of_another_kind_is_refused(model, part, other, sentence):
    tree = factory.plain(composed(f"model={model}", "model/posterior=diagonal_gaussian"))
    tree["model"][part] = tree["model"][other]
    with pytest.raises(factory.ConfigError) as caught:
        factory.check(tree)
    assert str(caught.value) == sentence


def test_the_settings_of_a_model_that_takes_components_are_checked_as_any_others():
    for words, sentence in {
        ("model=rhvae", "+model.latnt_dim=3"): "RHVAE has no such setting; did you mean 'latent_dim'?",
        ("model=rae_l2", "+model.prior=3"): "model.prior: RAEL2 has no such setting",
        ("model=aae", "model.latent_dim=abc"): "model.latent_dim: expected an integer, got 'abc'",
        ("model=vae_gan", "model.network=3"): "model.network: expected a Network, got 3",
    }.items():
        with pytest.raises(factory.ConfigError, match=re.escape(sentence)):
            factory.check(composed(*words))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("model.latent_dim=0", "model.latent_dim must be a whole number of at least 1; got 0"),
        ("model.network.hidden_dims=[0]", "model.network.hidden_dims must be widths of at least 1, got [0]"),
        ("model.network.activation=rellu", "model.network.activation: unknown name 'rellu'; did you mean 'relu'?"),
        ("model.posterior.log_var_bound=-1", "model.posterior.log_var_bound must be above 0 and finite; got -1.0"),
    ],
)
def test_what_a_constructor_refuses_is_told_with_the_key(digits, word, sentence):
    with pytest.raises(factory.ConfigError) as caught:
        factory.model(composed(word), digits)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("group", ["dataset", "trainer", "hardware"])
def test_a_group_that_is_not_there_is_named(group):
    cfg = {name: value for name, value in factory.plain(composed()).items() if name != group}
    with pytest.raises(factory.ConfigError, match=f"^{group}: nothing is chosen; set {group}=$"):
        getattr(factory, group)(cfg)


def test_a_target_elsewhere_in_the_tree_is_refused_before_anything_is_built(monkeypatch):
    cfg = {**factory.plain(composed()), "unused": [{"_target_": "os.system", "command": "true"}]}
    monkeypatch.setattr("vaebench.factory.objects.recipe", lambda *_: pytest.fail("something was built"))
    for function in (factory.check, factory.dataset, factory.trainer, factory.hardware, factory.callbacks):
        with pytest.raises(factory.ConfigError, match=r"^unused\[0\]._target_: 'os.system' is not allowed"):
            function(cfg)


def test_keys_of_errors_are_not_doubled():
    node = {"_target_": "vaebench.data.digits.Digits", "num_validation": 5000}
    with pytest.raises(factory.ConfigError) as caught:
        recipe(node, "dataset").make()
    assert str(caught.value).count("dataset.") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"path": "x.npz", "root": None}, {"path": "{here}/x.npz", "root": None}),
        ({"path": "../a/x.npz"}, {"path": "{above}/a/x.npz"}),
        ({"path": "~/x.npz"}, {"path": "{home}/x.npz"}),
        ({"path": "x.npz", "root": "data"}, {"path": "x.npz", "root": "{here}/data"}),
        ({"root": "/data/./sets"}, {"root": "/data/sets"}),
        ({"root": None}, {"root": None}),
        ({"root": 12}, {"root": 12}),
        ({"path": ""}, {"path": ""}),
    ],
)
def test_where_the_data_lie_does_not_depend_on_the_folder(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    places = {"here": tmp_path, "above": tmp_path.parent, "home": "/somewhere"}
    expected = {key: value.format(**places) if isinstance(value, str) else value for key, value in expected.items()}
    assert factory.with_absolute_paths({"seed": 0, "dataset": given}) == {"seed": 0, "dataset": expected}


def test_a_conditional_model_needs_classes_or_the_length_of_a_label_vector(digits):
    unlabelled = SimpleNamespace(
        shape=digits.shape,
        likelihood=digits.likelihood,
        num_classes=None,
        name="plain",
        likelihood_config=digits.likelihood_config,
    )
    with pytest.raises(
        factory.ConfigError, match=r"^model: ConditionalVAE needs labels, and dataset 'plain' has none$"
    ):
        factory.model(composed("model=conditional_vae"), unlabelled)
    assert factory.model(composed("model=conditional_vae", "model.condition_dim=4"), unlabelled).num_classes == 4
    assert factory.model(composed("model=conditional_vae"), digits).num_classes == 10
