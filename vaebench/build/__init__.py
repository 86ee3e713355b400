"""From configuration to objects: the only room below the commands that knows omegaconf, and the only one that builds.

Targets are judged against the allow-list over the whole tree first, then keys and types against the constructors.
"""

from vaebench.build.continuation import continued, refuse_differences
from vaebench.build.objects import (
    callbacks,
    check,
    dataset,
    hardware,
    metrics,
    model,
    plain,
    sampler,
    trainer,
    with_absolute_paths,
    with_likelihood,
)
from vaebench.build.stored import load_config, load_run, save_config
from vaebench.build.targets import ConfigError

__all__ = [
    "ConfigError",
    "callbacks",
    "check",
    "continued",
    "dataset",
    "hardware",
    "load_config",
    "load_run",
    "metrics",
    "model",
    "plain",
    "refuse_differences",
    "sampler",
    "save_config",
    "trainer",
    "with_absolute_paths",
    "with_likelihood",
]
