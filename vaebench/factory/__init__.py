"""From configuration to objects: the only package that instantiates, and the lowest that knows omegaconf.

Targets are checked against the allow-list over the whole tree first, then keys and types against the constructors.
Names are imported when they are first used: listings and completion read configurations without omegaconf or torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaebench.factory.continuation import continued as continued
    from vaebench.factory.continuation import refuse_differences as refuse_differences
    from vaebench.factory.objects import callbacks as callbacks
    from vaebench.factory.objects import check as check
    from vaebench.factory.objects import dataset as dataset
    from vaebench.factory.objects import extractor as extractor
    from vaebench.factory.objects import hardware as hardware
    from vaebench.factory.objects import metrics as metrics
    from vaebench.factory.objects import model as model
    from vaebench.factory.objects import plain as plain
    from vaebench.factory.objects import sampler as sampler
    from vaebench.factory.objects import sweep as sweep
    from vaebench.factory.objects import trainer as trainer
    from vaebench.factory.objects import with_absolute_paths as with_absolute_paths
    from vaebench.factory.objects import with_likelihood as with_likelihood
    from vaebench.factory.stored import TrainingSplit as TrainingSplit
    from vaebench.factory.stored import load_config as load_config
    from vaebench.factory.stored import load_data as load_data
    from vaebench.factory.stored import load_model as load_model
    from vaebench.factory.stored import load_run as load_run
    from vaebench.factory.stored import save_config as save_config
    from vaebench.factory.stored_dataset import check_data as check_data
    from vaebench.factory.stored_dataset import stored_data as stored_data
    from vaebench.factory.targets import ConfigError as ConfigError
    from vaebench.factory.weights import warm_start as warm_start

_MODULES = ("continuation", "objects", "stored", "stored_dataset", "targets", "weights")


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for module_name in _MODULES:
            module = importlib.import_module(f"vaebench.factory.{module_name}")
            found = vars(module).get(name)
            if getattr(found, "__module__", None) == module.__name__:
                return found
    raise AttributeError(f"module 'vaebench.factory' has no attribute '{name}'")
