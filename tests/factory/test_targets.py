from __future__ import annotations

import builtins
import os
import pathlib
import subprocess
import sys

import pytest

from vaebench.factory.targets import ConfigError, check_targets, resolve, targets
from vaebench.models.vae import VAE

HOSTILE = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.getoutput",
    "asyncio.subprocess.create_subprocess_shell",
    "pathlib.Path.write_text",
    "pickle.loads",
    "torch.load",
    "hydra.utils.instantiate",
    "importlib.import_module",
    "vaebench",
    "vaebench.runs.run.os.system",
    "vaebench.runs.run.write_atomic",
    "vaebench.factory.os.system",
    "vaebench.factory.targets.importlib.import_module",
    "vaebench.factory.recipes.Recipe",
    "vaebench.cli.main",
    "vaebench.runs.provenance.subprocess.run",
    "vaebench.modelsevil.Thing",
    "vaebench.models",
    "vaebench..models.vae.VAE",
    "vaebench.models.vae.__builtins__",
    "vaebench.models.vae.VAE.__init__.__globals__",
    "vaebench.models.base.torch.load",
    "vaebench.models.base.nn.Linear",
    "vaebench.models.base.Sequence",
    "vaebench.models.base.MappingProxyType",
    "vaebench.models.base.Batch",
    "vaebench.data.split.ThreadPoolExecutor",
    "vaebench.hardware.device.os.system",
    "vaebench.hardware.device.seed_everything",
    "vaebench.hardware.device.Iterator",
    "os.system;vaebench.models.vae.VAE",
    "vaebench.models.vae.VAE\n",
    "",
    "auto",
    None,
    3,
    ["vaebench.models.vae.VAE"],
    {"_target_": "vaebench.models.vae.VAE"},
]


@pytest.fixture
def tripwire(monkeypatch):
    """Fails the test if anything that an attacker wants is called."""

    def refuse(*arguments: object, **_: object) -> None:
        pytest.fail(f"something ran: {arguments}")

    for owner, name in ((os, "system"), (subprocess, "Popen"), (pathlib.Path, "write_text"), (builtins, "eval")):
        monkeypatch.setattr(owner, name, refuse)


@pytest.mark.parametrize("key", ["model._target_", "model.network._target_", "callback.x._target_", "anything"])
@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused_with_one_sentence(tripwire, target, key):
    with pytest.raises(ConfigError) as caught:
        resolve(target, key)
    assert str(caught.value).startswith(f"{key}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [target for target in HOSTILE if not str(target).startswith("vaebench.")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: {"_target_": bad},
        lambda bad: {"model": {"_target_": bad}},
        lambda bad: {
            "model": {"_target_": "vaebench.models.vae.VAE", "network": {"deep": [{"er": {"_target_": bad}}]}}
        },
        lambda bad: {"callback": {"x": {"_target_": bad}}},
        lambda bad: {"unused": [[{"_target_": bad}]]},
    ],
)
def test_the_whole_tree_is_judged_before_anything_is_imported(tripwire, monkeypatch, target, wrap):
    monkeypatch.setattr("importlib.import_module", lambda *_: pytest.fail("something was imported"))
    with pytest.raises(ConfigError, match=r"_target_: "):
        check_targets(wrap(target))


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "_mode_", "__class__"])
def test_other_special_keys_are_refused(key):
    with pytest.raises(ConfigError, match=rf"^model.network.{key} is not allowed"):
        check_targets({"model": {"network": {"_target_": "vaebench.networks.mlp.MLP", key: True}}})


def test_targets_are_found_everywhere():
    tree = {"_target_": "a", "b": [{"_target_": "c"}, ({"d": {"_target_": "e"}},)]}
    assert dict(targets(tree)) == {"_target_": "a", "b[0]._target_": "c", "b[1][0].d._target_": "e"}


def test_the_likelihood_alone_may_be_auto():
    check_targets({"model": {"likelihood": {"_target_": "auto"}}})
    for tree in ({"model": {"_target_": "auto"}}, {"model": {"prior": {"_target_": "auto"}}}, {"_target_": "auto"}):
        with pytest.raises(ConfigError, match="expected the dotted name of a class, got 'auto'"):
            check_targets(tree)


def test_a_class_is_found_where_it_is_defined_and_where_its_room_shows_it():
    assert resolve("vaebench.models.vae.VAE", "model._target_") is VAE
    assert resolve("vaebench.models.VAE", "model._target_") is VAE


def test_a_group_takes_classes_of_its_own_room_only():
    with pytest.raises(ConfigError, match=r"^model._target_: .* expected a class of vaebench.models,"):
        resolve("vaebench.networks.mlp.MLP", "model._target_")
    with pytest.raises(ConfigError, match=r"^metric.elbo._target_: .* expected a class of vaebench.metrics,"):
        resolve("vaebench.networks.mlp.MLP", "metric.elbo._target_")
    resolve("vaebench.networks.mlp.MLP", "model.network._target_")


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("vaebench.models.vea.VAE", "there is no module 'vaebench.models.vea'; did you mean 'vae'?"),
        ("vaebench.models.vae.VAEE", "'vaebench.models.vae' defines no class 'VAEE'; did you mean 'VAE'?"),
    ],
)
def test_a_misspelt_target_is_told_the_nearest_name(target, hint):
    with pytest.raises(ConfigError) as caught:
        resolve(target, "model._target_")
    assert str(caught.value) == f"model._target_: {hint}"


def test_a_module_that_python_cannot_find_is_told_where_it_looks(monkeypatch):
    monkeypatch.setenv("VAEBENCH_ALLOW", "nowhere")
    with pytest.raises(ConfigError, match=r"no module 'nowhere.models'; a module of your own must be"):
        resolve("nowhere.models.VAE", "model._target_")


def test_a_package_of_the_users_is_allowed_by_name(tmp_path, monkeypatch):
    package = tmp_path / "their_models"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from os import system\nfrom collections import OrderedDict\nclass Mine: ...\n"
    )
    (package / "broken.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve("their_models.Mine", "model._target_")
    assert "their_models" not in sys.modules
    monkeypatch.setenv("VAEBENCH_ALLOW", "other, their_models")
    assert resolve("their_models.Mine", "model._target_").__name__ == "Mine"
    for alias in ("system", "OrderedDict"):  # allowed is what the package defines, not what it imports
        with pytest.raises(ConfigError, match=f"defines no class '{alias}'"):
            resolve(f"their_models.{alias}", "model._target_")
    with pytest.raises(ConfigError, match="needs the package 'a_package_that_is_not_installed'"):
        resolve("their_models.broken.Mine", "model._target_")
    with pytest.raises(ConfigError, match=r"names \(now 'other, their_models'\)$"):
        resolve("their_models_too.Mine", "model._target_")
