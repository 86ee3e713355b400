"""What holds for every autoencoder in conf/model, on a toy data set: prototypes with noise, not square."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tests import composing
from vaebench import factory
from vaebench.cli.application import conf_dir
from vaebench.core import CAPABILITIES, Batch
from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples
from vaebench.factory.configurations import load as load_option
from vaebench.factory.targets import resolve
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import seed_everything
from vaebench.models.autoencoder import Autoencoder

ALL = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
WIDTHS = [24]


class Prototypes(Dataset):
    name = "prototypes"

    def __init__(self, shape: tuple[int, ...] = (1, 5, 4), num_classes: int = 3) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randint(2, 15, (num_classes, *shape), generator=generator)

        def examples(n: int) -> Examples:
            y = torch.arange(n) % num_classes
            x = centres[y] + torch.randint(-2, 3, (n, *shape), generator=generator)
            return Examples(x.clamp(0, 16).to(torch.uint8), y)

        super().__init__(
            examples(120),
            examples(30),
            examples(30),
            likelihood_name="binomial",
            likelihood_arguments={"total_count": 16},
            scale=16,
            num_classes=num_classes,
        )


@cache
def configuration(name: str) -> dict[str, Any]:
    """The model as a user gets it, with narrow layers."""
    cfg = composing.plain("train", f"model={name}")
    factory.check(cfg)  # with the trainer that the model needs
    if "latent_dim" in cfg["model"]:
        cfg["model"]["latent_dim"] = 3
    narrow(cfg["model"])
    return cfg


def narrow(node: dict[str, Any]) -> None:
    if "latent_dims" in node:
        node.update(hidden_dims=[12, 8], latent_dims=[3, 2])
        return
    for name, value in node.items():
        if name == "hidden_dims":
            node[name] = WIDTHS[: len(value)]
        elif name in ("channels", "decoder_channels") and value is not None:
            node[name] = [8] * len(value)
        elif name == "groups":
            node[name] = [min(count, 1) for count in value]
        elif name in ("num_embeddings", "embedding_dim"):
            node[name] = 8
        elif isinstance(value, dict):
            narrow(value)


def takes_images_only(name: str) -> bool:
    network = configuration(name)["model"].get("network") or {}
    return "channels" in network or "base_channels" in network


def make(name: str, dataset: Dataset | None = None, seed: int = 0) -> Any:
    seed_everything(seed)
    return factory.model(configuration(name), dataset or DATA)


def batch_of(dataset: Dataset, n: int = 20) -> Batch:
    return dataset.train.batch(torch.arange(n))


def losses(model: Any, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {part: loss.total for part, loss in model.losses(batch, 3).items()}


def parameters_of(modules: list[torch.nn.Module]) -> list[torch.nn.Parameter]:
    found = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return list(found.values())


def encodes(name: str) -> bool:
    target = load_option(f"model/{name}", [conf_dir()]).get("_target_")  # none: another's, with other settings
    return target is None or issubclass(resolve(target, "model._target_"), Autoencoder)


DATA = Prototypes()
MODELS = [name for name in ALL if encodes(name)]  # what holds for the others: tests/models/test_energy_based.py
pytestmark = pytest.mark.parametrize("name", MODELS)


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 7, 5), (6,)], ids=str)
def test_losses_are_finite_scalars_with_detached_terms(name, shape):
    dataset = Prototypes(shape)
    if len(shape) == 1 and takes_images_only(name):
        with pytest.raises(ValueError, match=r"takes images .*\(C, H, W\).*, got examples of shape \(6,\)"):
            make(name, dataset)
        return
    model, batch = make(name, dataset), batch_of(dataset)
    assert set(model.losses(batch, 0)) == set(model.parts())
    for part in model.parts():
        loss = model.losses(batch, 0, part)[part]
        assert loss.total.shape == ()
        assert torch.isfinite(loss.total)
        for term in loss.terms.values():
            assert term.shape == ()
            assert torch.isfinite(term)
            assert not term.requires_grad
    assert any(loss.terms for loss in model.losses(batch, 0).values())
    validation = model.eval().validation_loss(batch, 0)
    assert torch.isfinite(validation.total)


def test_the_smallest_batch_that_the_model_states_is_enough(name):
    model = make(name)
    assert all(torch.isfinite(total) for total in losses(model, batch_of(DATA, model.min_batch)).values())


def test_every_parameter_gets_a_finite_gradient_from_its_part(name):
    model = make(name)
    totals = losses(model, batch_of(DATA))
    names = {id(parameter): path for path, parameter in model.named_parameters()}
    for part, modules in model.parts().items():
        parameters = parameters_of(modules)
        gradients = torch.autograd.grad(totals[part], parameters, allow_unused=True, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert gradient is not None, f"{part}: no gradient for {names[id(parameter)]}"
            assert torch.isfinite(gradient).all(), f"{part}: gradient of {names[id(parameter)]}"
        assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_parts_partition_the_parameters(name):
    model = make(name)
    found = [id(parameter) for modules in model.parts().values() for parameter in parameters_of(modules)]
    assert len(found) == len(set(found)), "a parameter belongs to two parts"
    assert set(found) == {id(parameter) for parameter in model.parameters()}, "a parameter belongs to no part"


def test_the_same_seed_gives_the_same_weights_and_losses(name):
    batch = batch_of(DATA)
    first, second, other = make(name), make(name), make(name, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert losses(first, batch) == losses(second, batch)
    assert losses(first, batch) != losses(other, batch)


def test_what_is_saved_and_loaded_answers_the_same(name):
    model = make(name)
    model.before_training(DATA.train)
    model.end_epoch(DATA.train, 20)
    model.eval()
    other = make(name, seed=1)
    other.load_state_dict(load(save({key: value.contiguous() for key, value in model.state_dict().items()})))
    other.eval()
    batch = batch_of(DATA)
    z = torch.randn(4, *model.latent_shape)
    with torch.no_grad():
        assert torch.equal(model.decode(z, 1), other.decode(z, 1))
        assert torch.equal(model.encode(batch.x, batch.y).mean, other.encode(batch.x, batch.y).mean)
        totals = [validation(built, batch) for built in (model, other)]
    assert torch.equal(*totals)


def validation(model: Any, batch: Batch) -> Tensor:
    torch.manual_seed(2)
    with torch.enable_grad():  # some posteriors follow a gradient
        return model.validation_loss(batch, 0).total.detach()


def test_descent_on_its_own_loss_lowers_each_parts_loss(name):
    batch = batch_of(DATA)
    for part in make(name).parts():
        model = make(name)
        parameters = parameters_of(model.parts()[part])
        optimizer = torch.optim.Adam(parameters, lr=3e-3)
        before = losses(model, batch)[part].item()
        for _ in range(30):
            gradients = torch.autograd.grad(losses(model, batch)[part], parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        after = losses(model, batch)[part].item()
        assert after < before - 0.002 * abs(before), f"{part}: from {before} to {after}"


def test_training_brings_reconstructions_closer_to_the_data(name):
    cfg = configuration(name)
    cfg = {**cfg, "trainer": {**cfg["trainer"], "num_epochs": 20, "batch_size": 20, "learning_rate": 2e-3}}
    model, x, y = make(name), DATA.validation.x, DATA.validation.y

    def error() -> float:
        return (model.eval().reconstruct(x, deterministic=True, y=y) - x).square().mean().item()

    before = error()
    factory.trainer(cfg).train(model, DATA, hardware=Hardware(device="cpu", threads=1))
    assert error() < 0.9 * before


def test_what_a_user_does_with_any_model(name):
    """With labels, which a model without labels ignores."""
    model = make(name).eval()
    batch = batch_of(DATA, 5)
    x, y = batch.x, batch.y
    shape = tuple(x.shape[1:])
    q = model.encode(x, y)
    mean, log_var = q
    latent_shape = tuple(model.latent_shape)
    assert mean.shape == log_var.shape == (5, *latent_shape)
    assert torch.equal(q[0], mean)
    assert torch.equal(q[1], log_var)
    assert model.encode(x[0], y[:1]).mean.shape == model.encode(x[0], 2).mean.shape == (1, *latent_shape)
    assert model.reparameterize(mean, log_var).shape == (5, *latent_shape)
    assert model.decode(mean, y).shape == model.decode(mean, 1).shape == x.shape
    assert model.decode(mean.expand(2, 7, 5, *latent_shape), y).shape == (2, 7, 5, *shape)
    outputs = model(x, y)
    assert {key: tuple(outputs[key].shape) for key in ("reconstruction", "mean", "log_var", "z")} == {
        "reconstruction": tuple(x.shape), **dict.fromkeys(("mean", "log_var", "z"), (5, *latent_shape)),
    }  # fmt: skip
    assert outputs["reconstructed"] is outputs["reconstruction"]
    assert outputs["logvar"] is outputs["log_var"]
    first, again = (model.reconstruct(x, deterministic=True, y=y) for _ in range(2))
    assert torch.equal(first, again)
    images = [
        model.reconstruct(x, y=y),
        model.interpolate(x[0], x[1], steps=4, y=1),
        model.interpolate(x[:1], x[1:2], steps=4, spherical=True, y=y[:1]),
        model.latent_traversal(x[:1], dim=2, steps=6, y=2),
    ]
    assert [tuple(image.shape) for image in images] == [(n, *shape) for n in (5, 4, 4, 6)]
    assert all(image.min() >= 0 and image.max() <= 1 for image in images)
    with pytest.raises(ValueError, match="expected x of shape"):
        model.encode(x[..., :-1])
    with pytest.raises(ValueError, match="dim must be in"):
        model.latent_traversal(x[:1], dim=mean[0].numel())


def test_the_criterion_for_the_best_weights_is_a_validation_metric(name):
    model = make(name).eval()
    if model.best_criterion is not None:
        metric, better = model.best_criterion
        assert metric in {"loss", *model.validation_loss(batch_of(DATA), 0).terms}
        assert better in ("min", "max")


def test_it_samples_or_says_why_not(name):
    model = make(name).eval()
    model.before_training(DATA.train)
    model.end_epoch(DATA.train, 20)
    if "prior" in model.capabilities:
        assert model.sample(3).shape == model.generate(3).shape == (3, *DATA.shape)
        assert model.sample(3, y=1).shape == model.sample(3, y=[0, 1, 2], temperature=0.5).shape == (3, *DATA.shape)
        labels = model.draw_labels(3)
        assert model.draw_from_prior(3, labels).shape == (3, *model.latent_shape)
        assert labels is None or labels.shape == (3,)
        with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1; got 0"):
            model.sample(0)
    else:
        with pytest.raises(ValueError, match=r"has no prior: \w+"):
            model.sample(3)


def test_it_has_a_rate_or_says_why_not(name):
    model = make(name).eval()
    batch = batch_of(DATA, 5)
    x, y = batch.x, batch.y
    if "rate" not in model.capabilities:
        for refused in (
            lambda: model.distortion_and_rate(x, y),
            lambda: model.log_weights(x, 2, y),
            lambda: model.loss_fn(x, y=y),
        ):
            with pytest.raises(ValueError, match=r"has no rate: \w+"):
                refused()
        return
    distortion, rate = model.distortion_and_rate(x, y)
    assert distortion.shape == rate.shape == (5,)
    assert model.log_weights(x, 4, y).shape == (4, 5)
    terms = model.loss_fn(x, y=y, step=3)
    assert terms["loss"] is terms["total_loss"]
    assert terms["recon_loss"] is terms["reconstruction_loss"]
    assert {value.shape for value in terms.values()} == {()}
    assert re.match(r"in closed form|one sample|as what the bound leaves", model.rate_estimator)


def test_the_joint_density_is_that_of_the_log_weights(name):
    model = make(name).eval()
    batch = batch_of(DATA, 5)
    if "rate" not in model.capabilities or "manifold" in model.capabilities:
        return  # there is no density q(z|x), or the draws flow on
    torch.manual_seed(1)
    log_w = model.log_weights(batch.x, 1, batch.y)
    torch.manual_seed(1)
    q = model.posterior(batch.x, batch.y)
    z = q.rsample((1,))
    again = model.log_joint(batch.x, z, batch.y) - q.log_prob(z)
    torch.testing.assert_close(log_w, again, rtol=1e-5, atol=1e-4)  # sums over all latents of a hierarchy


def test_missing_capabilities_have_reasons(name):
    model = make(name)
    known = set(CAPABILITIES)
    assert model.capabilities <= known
    assert all(model.reason_against(name) for name in known - model.capabilities)
    assert not any(model.reason_against(name) for name in model.capabilities)


def test_cautions_are_about_terms_that_are_logged_and_keys_that_there_are(name):
    model = make(name)
    terms = {term for loss in model.losses(batch_of(DATA), 0).values() for term in loss.terms}
    for term, (limit, meaning) in model.cautions.items():
        assert term in terms
        assert limit > 0
        keys = re.findall(r"model\.(\w+)", meaning)
        assert keys
        assert set(keys) <= set(configuration(name)["model"])
