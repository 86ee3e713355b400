"""Every key of every option does something: change it, and what the option does changes, or the table says why not.

A key that a sampler does not hand on, or a command ignores, is found here the day it appears. An option is
added without work where its values are numbers, truths or words with a few choices; CHANGES gives another value where
none can be guessed.
"""

from __future__ import annotations

import copy
import functools
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from tests.contracts import behaviour
from vaebench import factory
from vaebench.factory.configurations import conf_dir, options
from vaebench.factory.groups import GROUPS
from vaebench.factory.signatures import parameters
from vaebench.factory.targets import AUTO, resolve

# Settings of the comparison itself: few and short, and such that the keys matter. By group, option, or key.
SMALL: dict[str, dict[str, Any]] = {
    "sampler.length": {"sampler.step_size": 0.1},  # which is tuned otherwise
    "sampler.kernel.length": {"sampler.step_size": 0.1},
    "sampler.mass_matrix": {"sampler.num_warmup": 40},  # long enough to learn one
    "trainer": {"trainer.num_epochs": 4, "trainer.batch_size": 20},
    "trainer=coupled_adversarial": {"trainer.keep_best": "loss"},  # VAE-GAN has no criterion of its own
    "trainer=contrastive_divergence": {"trainer.keep_best": "loss", "trainer.k_steps": 2},  # nor has EBM
    "callback": {"trainer.num_epochs": 2, "trainer.batch_size": 20},
    "model/likelihood=binomial": {"model.likelihood.total_count": 16},
    "dataset=arrays": {"dataset.path": "x.npz", "dataset.key": "x", "dataset.labels_key": "y", "dataset.layout": "chw"},
    "model=vamp_vae": {"model.num_pseudo_inputs": 7},
    "dataset=images": {"dataset.path": "pictures"},
    "trainer.scheduler_args": {"trainer.scheduler": "StepLR", "trainer.scheduler_args": {"step_size": 1}},
    "trainer.scheduler_interval": {"trainer.scheduler": "StepLR", "trainer.scheduler_args": {"step_size": 1}},
    "trainer.patience": {"trainer.keep_best": "loss", "trainer.keep_best_mode": "max"},
    "trainer.keep_best_mode": {"trainer.keep_best": "loss", "trainer.keep_best_mode": "min"},
    "callback.early_stopping.patience": {"trainer.keep_best": "loss", "trainer.keep_best_mode": "max"},
    "model.free_bits_of": {"model.free_bits": 0.02},
    "model.embed_dim": {"model.condition_type": "film"},
    "sampler.patience": {"sampler.num_epochs": 12, "sampler.learning_rate": 0.1},
    "sampler=maf:sampler.patience": {"sampler.num_epochs": 8, "sampler.learning_rate": 0.3},
    "sampler=iaf:sampler.patience": {"sampler.num_epochs": 8, "sampler.learning_rate": 0.3},
    "sampler=two_stage:sampler.patience": {"sampler.num_epochs": 8, "sampler.learning_rate": 0.3},
    "sampler=pixelcnn": {
        "sampler.hidden_channels": 8,
        "sampler.num_blocks": 1,
        "sampler.num_epochs": 3,
        "sampler.batch_size": 20,
        "sampler.learning_rate": 0.1,
    },
    "sampler=code_transformer": {
        "sampler.hidden_channels": 16,
        "sampler.num_blocks": 1,
        "sampler.num_epochs": 3,
        "sampler.batch_size": 20,
        "sampler.learning_rate": 0.03,
    },
    "sampler=code_transformer:sampler.patience": {"sampler.num_epochs": 10, "sampler.learning_rate": 0.1},
    "metric=ais": {
        "metric.ais.num_temperatures": 4,
        "metric.ais.num_chains": 2,
        "metric.ais.num_leapfrog": 2,
        "metric.ais.num_simulated": 5,
    },
    "metric=energy_nll": {"metric.energy_nll.num_temperatures": 4, "metric.energy_nll.num_chains": 3},
    "sampler=two_stage": {
        "sampler.hidden_dim": 8,
        "sampler.num_layers": 1,
        "sampler.num_epochs": 3,
        "sampler.batch_size": 20,
        "sampler.learning_rate": 0.05,
    },
    "sampler=latent_diffusion": {
        "sampler.hidden_dim": 8,
        "sampler.num_blocks": 1,
        "sampler.num_timesteps": 10,
        "sampler.num_epochs": 3,
        "sampler.batch_size": 20,
        "sampler.learning_rate": 0.05,
    },
    "sweep=list": {"sweep.confirm_above": 200},
    "sweep=random": {"sweep.num_jobs": 8},
    "sweep=optuna": {"sweep.num_trials": 12},
    "sweep.pruner_args": {"sweep.pruner": "MedianPruner"},
    "model.network.block_channels": {"model.network.num_blocks": 1},
    "model.skip_channels": {"model.skip_mode": "stochastic"},
    "model.negatives": {"model.network.activation": "tanh"},  # after a ReLU no cosine is negative
    "model.context_dim": {"model.context": "labels"},
    "callback.images.animation": {"callback.images.every_epochs": 1},
    "callback.early_stopping.min_delta": {"callback.early_stopping.patience": 1},
}
# Of samplers: whichever of these keys it has.
SHORT = {"num_chains": 3, "num_warmup": 12, "num_draws": 8, "num_components": 2, "num_epochs": 1, "num_steps": 8}

# Another value for a key whose own says nothing of its kind; by option and key, or by key.
CHANGES: dict[str, Any] = {
    "trainer.num_steps": 5,
    "trainer.optimizer": "SGD",
    "trainer.optimizer_args": {"weight_decay": 0.1},
    "trainer.scheduler": "cosine",
    "trainer.scheduler_args": {"step_size": 1, "gamma": 0.5},
    "trainer.scheduler_interval": "step",
    "trainer.warmup_steps": 5,
    "trainer.gradient_clip_norm": 1e-3,
    "trainer.skip_gradient_above": 1e-3,
    "trainer.ema_decay": 0.5,
    "trainer.validate_every": None,
    "trainer.keep_best": None,
    "trainer.keep_best_mode": "max",
    "trainer.patience": 1,
    "trainer.max_minutes": 1e-9,
    "callback.early_stopping.patience": 1,
    "callback.early_stopping.min_delta": 1e6,
    "callback.ema.decay": 0.01,
    "callback.images.every_epochs": 1,
    "callback.images.num_images": 5,
    "callback.metric_printer.every_epochs": 2,
    "callback.posterior_collapse.threshold": 1e-9,
    "callback.posterior_collapse.every_epochs": 2,
    "callback.posterior_collapse.alarm_below": 0.0,
    "model.posterior.log_var_bound": 1e-3,
    "model.likelihood.total_count": 32,
    "model.likelihood.num_levels": 17,
    "model/likelihood=conditional_flow:model.likelihood.num_levels": 9,
    "model/likelihood=denoising_diffusion:model.likelihood.num_levels": 9,
    "model=diffusion_vae:model.likelihood.num_levels": 9,
    "model=flow_vae:model.likelihood.num_levels": 9,
    "model.network.num_levels": 1,
    "model.level": "C2",
    "model.negatives": "keep",
    "decoder_hidden_dims": [7],
    "activation": "tanh",
    "latent_dims": [5, 4, 3, 2, 1],
    "bottleneck": 1.0,
    "norm": "group",
    "pool": "gap",
    "decoder_channels": [5, 6],
    "decoder_kernel_size": 5,
    "decoder_stride": [2, 1],
    "max_centroids": 4,
    "capacity_num_iter": 2,
    "sampler.patience": 1,
    "temperature": 0.5,
    "sampler.step_size": 0.1,
    "sampler.target_acceptance": 0.6,
    "dataset=arrays:dataset.key": "other",
    "dataset=arrays:dataset.labels_key": "z",
    "dataset=arrays:dataset.context_key": "z",
    "dataset=arrays:dataset.layout": "hwc",
    "dataset.scale": 510.0,
    "dataset.binarization": "threshold",
    "dataset.num_examples": 20,
    "dataset=images:dataset.size": [4, 4],
    "dataset=xy_squares:dataset.size": 8,
    "dataset.mode": "grey",
    "num_samples": 21,
    "sampler.num_centers": 20,
    "sampler.target.means": [[-1.0, 0.0], [2.0, 0.0], [0.0, 2.0]],
    "sampler.target.weights": [1.0, 2.0, 3.0],
    "metric=dci:metric.dci.num_train": 30,
    "metric=sap:metric.sap.num_train": 30,
    "hardware.precision": "bf16",
    "hardware.threads": 2,
    "sampler=pixelcnn:sampler.batch_size": 10,
    "sampler=code_transformer:sampler.batch_size": 10,
    "sampler=code_transformer:sampler.hidden_channels": 64,
    "sampler=code_transformer:sampler.num_heads": 2,
    "sampler.num_classes": 3,
    "sampler=maf:sampler.batch_size": 10,
    "sampler=iaf:sampler.batch_size": 10,
    "sampler.hidden_dim": 6,
    "sampler.eta": 0.5,
    "hardware=slurm:hardware.array_parallelism": 1,
    "hardware.partition": "gpu",
    "hardware.account": "me",
    "hardware.qos": "low",
    "hardware.constraint": "a100",
    "hardware.timeout_min": 90,
    "hardware.cpus_per_task": 4,
    "hardware.gpus_per_node": 1,
    "hardware.mem_gb": 2.5,
    "hardware.setup": ["module load cuda"],
    "hardware.additional_parameters": {"mail-user": "me@here"},
    "sweep.confirm_above": 1,
    "sweep.sampler": "RandomSampler",
    "sweep.sampler_args": {"n_startup_trials": 2},
    "sweep.pruner": "MedianPruner",
    "sweep.pruner_args": {"n_startup_trials": 1},
    "sweep.metrics": ["rate"],
    "sweep.directions": ["maximize"],
    "max_depth": 1,
    "max_iterations": 2,
    "mean": [0.5, -1.0],
    "covariance": [[2.0, 0.1], [0.1, 0.5]],
}
# Keys whose change has no effect that can be seen here, and why that is right, or where it is seen.
REASONS: dict[str, str] = {
    "trainer.parts": "names the model's own parts; tests/trainers/test_optimizers.py",
    "trainer.non_finite": "matters where a loss is not finite; tests/trainers/test_finite.py",
    "trainer.max_skipped": "matters where a loss is not finite; tests/trainers/test_finite.py",
    "callback.checkpoint.every_seconds": "when is not what; tests/trainers/callbacks/test_callbacks.py",
    "callback.progress.every_seconds": "when is not what; tests/trainers/callbacks/test_callbacks.py",
    "callback.progress.bar": "a terminal's; tests/trainers/callbacks/test_callbacks.py",
    "callback=wandb": "writes files of another package; tests/trainers/callbacks/test_trackers.py",
    "callback=mlflow": "writes files of another package; tests/trainers/callbacks/test_trackers.py",
    "callback=tensorboard": "writes files of another package; tests/trainers/callbacks/test_trackers.py",
    "callback=throughput": "measures the clock; tests/trainers/callbacks/test_callbacks.py",
    "sampler=riemannian_hmc:sampler.metric": "an energy's own is tried in tests/mcmc/kernels/test_riemannian_hmc.py",
    "kernel=riemannian_hmc:sampler.kernel.metric": "an energy's own is tried in the same file",
    "sampler=langevin:sampler.target_acceptance": "nothing is accepted or rejected; its constructor refuses a value",
    "sampler=meads:sampler.target_acceptance": "nothing is tuned by it; its constructor refuses a value",
    "sampler=mclmc:sampler.target_acceptance": "nothing is accepted or rejected; its constructor refuses a value",
    **{
        f"sampler={name}:sampler.mass_matrix": "it has scales of its own; its constructor refuses another value"
        for name in ("langevin", "meads", "chees", "mclmc", "adjusted_mclmc", "parallel_tempering", "riemannian_hmc")
    },
    "model.encoder": "a module of the user's own; tests/models/test_own_networks.py",
    "model.decoder": "a module of the user's own; tests/models/test_own_networks.py",
    "model.gradient_checkpointing": "saves memory and changes no number; tests/models/test_hierarchy.py",
    "model.condition_dim": "is the number of classes, and any other is refused; tests/models/test_conditional_vae.py",
    "model/quantizer=residual_vq:model.quantizer.distance": "only the Euclidean one is taken",
    "dataset=images:dataset.scale": "of pictures of more than 8 bits; tests/data/test_images.py",
    "sweep.path": "a place; tests/sweeps/test_kinds.py",
    "dataset.root": "a place; tests/data",
    "dataset.path": "a place; tests/data",
    "dataset.memory_gib": "bounds what is read into memory; tests/data/test_arrays.py and test_images.py",
    "sampler.refit": "matters where a fitted sampler is stored; tests/samplers",
    "chunk_size": "how many importance samples are held at once; tests/metrics/test_importance_bound.py",
    "hardware.device": "what this machine has decides; tests/hardware/test_device.py",
    "hardware.num_devices": "the number of processes; tests/hardware/test_processes.py",
    "hardware.data_on_device": "where data lie; tests/hardware/test_device.py",
}
# Packages without which an option does nothing.
NEEDS = {("hardware", "slurm"): "submitit", ("sweep", "optuna"): "optuna"}
# Data sets that are read from files of others.
ELSEWHERE = ("mnist", "fashion_mnist", "binarized_mnist", "cifar10", "omniglot", "lpc_sprites")


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


@functools.cache
def composed(verb: str, words: tuple[str, ...]) -> dict[str, Any]:
    return factory.plain(compose(verb, list(words)))


def entry(group: str, name: str) -> tuple[str, tuple[str, ...], str]:
    """The verb that takes an option, the words that choose it, and the place of its settings."""
    if group in ("kernel", "target"):
        return "sample", ("sampler=mcmc", f"{group}={name}"), f"sampler.{group}"
    if group == "callback":
        return "train", (f"callback=[{name}]",), f"callback.{name}"
    if group == "metric":
        return "evaluate", (f"metric=[{name}]",), f"metric.{name}"
    owner = MODEL_OF.get(f"{group}={name}", MODEL_OF.get(group))
    words = (f"{group}={name}", *([f"model={owner}"] if owner else []))
    return GROUPS[group].verbs[0], words, group.replace("/", ".")


MODEL_OF = {  # where the option needs another than the default
    "trainer=adversarial": "aae",
    "trainer=contrastive_divergence": "ebm",
    "trainer=coupled": "rae_l2",
    "trainer=coupled_adversarial": "vae_gan",
    "model/beta": "beta_vae",
    "model/quantizer": "vq_vae",
    "model/network=ladder": "ladder_vae",
    "model/network=vdvae": "vdvae",
    "model/network=nvae": "nvae",
    "model/prior=conditional_gaussian": "conditional_vae",
}


def own_options() -> list[tuple[str, str]]:
    """The options that are classes of their own, not other settings of one."""
    found = []
    for group in GROUPS:
        for name in options([conf_dir()]).get(group, []) if group != "experiment" else ():
            content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
            if content.get("_target_", AUTO) != AUTO and not (group == "dataset" and name in ELSEWHERE):
                found.append((group, name))
    return found


def base_of(group: str, name: str, folder: Path, key: str = "") -> dict[str, Any]:
    """The configuration from which one key is changed."""
    verb, words, _ = entry(group, name)
    cfg = copy.deepcopy(composed(verb, words))
    if "model" in cfg:
        behaviour.small(cfg)
    if group in ("sampler", "kernel", "target"):
        cfg["sampler"].update({name: value for name, value in SHORT.items() if name in cfg["sampler"]})
    for scope in (group, f"{group}={name}", key):
        for path, value in SMALL.get(scope, {}).items():
            put(cfg, path, value)
    if group == "dataset" and name in ("arrays", "images"):
        file, pictures = behaviour.own_files(folder)
        cfg["dataset"]["path"] = str(file if name == "arrays" else pictures)
    if (group, name) == ("sweep", "list"):
        cfg["sweep"]["path"] = str(behaviour.own_list(folder))
    return cfg


def get(cfg: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        cfg = cfg[name]
    return cfg


def put(cfg: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    get(cfg, ".".join(above))[last] = value


def keys(group: str, name: str) -> list[str]:
    """The keys of an option; of a part that has a file of its own, one that shows that the part is used."""
    verb, words, place = entry(group, name)
    found = []
    for key, value in get(composed(verb, words), place).items():
        if key == "_target_":
            continue
        if not (isinstance(value, Mapping) and "_target_" in value):
            found.append(f"{place}.{key}")
            continue
        inner = [
            part for part, setting in value.items() if part != "_target_" and isinstance(setting, (int, float, list))
        ]
        found += [f"{place}.{key}.{part}" for part in inner[:1]]
    return found


def listed(table: Mapping[str, Any], group: str, name: str, key: str) -> str | None:
    """The most particular line of a table that speaks of a key."""
    short = key.rpartition(".")[2]
    return next((line for line in (f"{group}={name}:{key}", key, short, f"{group}={name}") if line in table), None)


def other_value(cfg: Mapping[str, Any], group: str, name: str, key: str) -> Any:
    """Another valid value."""
    line = listed(CHANGES, group, name, key)
    if line is not None:
        return CHANGES[line]
    value, (above, _, last) = get(cfg, key), key.rpartition(".")
    annotation = parameters(resolve(get(cfg, above)["_target_"], f"{above}._target_"))[last].annotation
    choices = [choice for choice in typing.get_args(annotation) if isinstance(choice, str) and choice != value]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return [value[0] + 1, *value[1:]]
    if choices:
        return choices[0]
    pytest.fail(
        f"{group}={name}: name another value than {key}={value} in CHANGES, or the reason for no effect in REASONS"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it loads its compiler
@pytest.mark.parametrize(("group", "name"), own_options(), ids=lambda value: value)
def test_every_key_has_an_effect_or_a_reason_for_none(group, name, tmp_path):
    if (group, name) in NEEDS:
        pytest.importorskip(NEEDS[group, name], reason="an extra that is not installed")
    behave = behaviour.of(group)
    seen: dict[str, Any] = {}
    ignored = []
    for number, key in enumerate(keys(group, name)):
        if listed(REASONS, group, name, key):
            continue
        scope = next((line for line in (f"{group}={name}:{key}", key) if line in SMALL), "")
        folders = [tmp_path / f"{number}-{side}" for side in ("before", "after")]
        for folder in folders:
            folder.mkdir()
        cfg = base_of(group, name, folders[0], scope)
        if scope not in seen:
            seen[scope] = behave(copy.deepcopy(cfg), folders[0])
        value = other_value(cfg, group, name, key)
        assert value != get(cfg, key), f"{group}={name}: CHANGES gives {key} the value that it has, {value}"
        put(cfg, key, value)
        if behave(cfg, folders[1]) == seen[scope]:
            ignored.append(f"{key}={value}")
    assert not ignored, (
        f"{group}={name}: nothing changes with {', '.join(ignored)}; is it handed on? If so, say why in REASONS"
    )


def test_every_reason_and_change_is_about_a_key_that_there_is():
    used = set()
    for group, name in own_options():
        for key in keys(group, name):
            used |= {listed(REASONS, group, name, key), listed(CHANGES, group, name, key)}
        used |= {f"{group}={name}"} & set(REASONS)
    assert set(REASONS) | set(CHANGES) <= used, sorted((set(REASONS) | set(CHANGES)) - used)
