"""Wording of messages: near names, counts, ranges. Nothing here imports torch, so that the command line stays fast."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from typing_extensions import Self

# What other libraries call our keys. A word may appear in several lines; only those that are valid here count.
SYNONYMS = {
    "learning_rate": "lr base_lr max_lr init_lr learningrate step_length",
    "num_epochs": "epoch epochs n_epochs nepochs max_epochs num_epoch total_epochs",
    "num_steps": "steps n_steps max_steps total_steps iterations num_iterations iters n_iters max_iter",
    "batch_size": "batch bs b batchsize mini_batch minibatch minibatch_size train_batch_size",
    "num_critic_steps": "n_critic critic_iters disc_steps",
    "optimizer": "optim opt optimiser",
    "optimizer_args": "weight_decay wd momentum betas amsgrad nesterov",
    "scheduler": "lr_scheduler lr_schedule sched",
    "warmup_steps": "warmup num_warmup_steps lr_warmup warmup_iters",
    "gradient_clip_norm": "clip grad_clip clip_grad clip_norm grad_norm max_grad_norm gradient_clip_val gradient_clip",
    "accumulate": "grad_accum accumulation_steps gradient_accumulation_steps accumulate_grad_batches",
    "ema_decay": "ema ema_rate",
    "patience": "early_stopping early_stop",
    "max_minutes": "time_limit max_time timeout walltime",
    "latent_dim": "latent latent_size latent_dims latents z_dim zdim z_size nz n_z n_latent num_latent num_latents "
    "code_dim code_size bottleneck_dim",
    "hidden_dims": "hidden hidden_dim hidden_size hidden_sizes hidden_layers hiddens h_dim layers units",
    "channels": "filters num_filters feature_maps",
    "activation": "nonlinearity act act_fn activation_fn",
    "beta": "kl_weight kld_weight kl_coeff beta_kl",
    "likelihood": "reconstruction_loss recon_loss decoder_likelihood output_distribution observation_model",
    "posterior": "encoder_distribution variational_distribution",
    "network": "architecture arch backbone encoder decoder",
    "model": "model_name arch architecture net vae_type",
    "dataset": "data ds data_set dataset_name",
    "root": "data_dir data_root dataset_dir datadir data_folder",
    "path": "file filename data_path data_file filepath",
    "num_validation": "val_size validation_size n_val",
    "validation_fraction": "val_split val_fraction val_frac validation_split",
    "test_fraction": "test_split test_frac",
    "num_examples": "limit max_examples max_samples subset n_examples",
    "binarization": "binarize binarise binary",
    "seed": "random_seed manual_seed rng_seed random_state",
    "hardware": "accelerator device",
    "device": "accelerator cuda",
    "gpu": "cuda rocm",
    "mps": "metal apple",
    "num_devices": "gpus n_gpus num_gpus ngpus devices world_size nproc_per_node",
    "precision": "amp fp16 bf16 half mixed_precision dtype",
    "threads": "num_threads n_threads n_jobs cores",
    "compile": "torch_compile jit",
    "deterministic": "reproducible cudnn_deterministic",
    "resume": "resume_from resume_from_checkpoint continue ckpt_path restart",
    "run": "runs run_dir run_path model_path model_dir ckpt_path checkpoint_path experiment_dir",
    "checkpoint": "ckpt weights",
    "hydra.run.dir": "output_dir out_dir outdir save_dir log_dir logdir exp_dir run_dir",
    "output": "out output_dir out_dir outdir save_dir",
    "metric": "metrics measure score",
    "callback": "callbacks logger hooks",
    "sampler": "samplers generator",
    "target": "targets energy",
    "num_samples": "n_samples samples sample_size n k num_images",
    "num_chains": "chains n_chains nchains",
    "num_warmup": "warmup burnin burn_in n_burn num_burn_in num_burnin tune n_tune",
    "num_draws": "draws n_draws num_results",
    "thinning": "thin thin_by",
    "num_leapfrog": "leapfrog leapfrog_steps num_leapfrog_steps n_leapfrog n_lf l",
    "step_size": "eps epsilon eps_lf stepsize",
    "target_acceptance": "target_accept target_accept_prob accept_rate",
    "temperature": "temp tau",
    "num_components": "n_components components",
    "sort_by": "sort order_by sort_key",
}


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the valid name closest to `name`, or None where none is close.

    The last parts of dotted names decide: `trainer.lr` is not close to `trainer.parts`. A word of the field that means
    one of the choices is closer than any spelling.

    Args:
        name: What came.
        choices: What is valid.
        cutoff: How alike the spellings must be, from 0 to 1.
    """
    choices = list(choices)
    same = same_meaning(name, choices)
    if same is not None:
        return same
    by_leaf = {_leaf(choice).lower(): choice for choice in reversed(choices)}
    found = difflib.get_close_matches(_leaf(name).lower(), list(by_leaf), n=1, cutoff=cutoff)
    return by_leaf[found[0]] if found else None


def same_meaning(name: str, choices: Iterable[str]) -> str | None:
    """Return the valid name that `name` stands for: the same last part, or another word for it; None if there is none.

    Where several do, the one nearest the root.
    """
    leaf = _leaf(name).lower().replace("-", "_")
    meanings = {leaf, *(ours for ours, theirs in SYNONYMS.items() if leaf in theirs.split())}
    found = [choice for choice in choices if choice in meanings or _leaf(choice).lower() in meanings]
    return min(found, key=lambda choice: (_leaf(choice).lower() != leaf, choice.count(".")), default=None)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2] or name


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts: "1 epoch", "2 epochs"."""
    return f"{number} {noun}" + "s" * (number != 1)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error's sentence: the nearest name, or else the valid ones."""
    choices = sorted(filter(None, choices))
    close = nearest(name, choices)
    if close is not None:
        return f"; did you mean '{close}'?"
    return f"; valid names: {', '.join(choices)}" if choices else ""


class _OfInit:
    """The signature of a class that has a `__new__` beside its constructor."""

    def __get__(self, instance: object, kind: type[Any]) -> inspect.Signature:
        if instance is not None:  # it may be callable itself
            raise AttributeError("__signature__")
        if kind.__init__ is object.__init__:
            return inspect.Signature()
        signature = inspect.signature(kind.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class NamedArguments:
    """Base of the classes that users construct: an argument that none has is answered with the nearest name.

    Raises:
        TypeError: as Python does for an unexpected argument.
    """

    __signature__: Any = _OfInit()

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Hold the names of arguments against those of `__init__`."""
        known = _argument_names(cls) if given else None  # type: ignore[arg-type]
        for name in given:
            if known is not None and name not in known:
                raise TypeError(f"{cls.__name__} has no argument '{name}'{did_you_mean(name, known)}")
        return super().__new__(cls)


@functools.cache
def _argument_names(kind: type[Any]) -> frozenset[str] | None:
    """The names of a constructor's arguments and those that it translates; None if it takes any."""
    init: Any = inspect.unwrap(kind.__init__)
    names = {name for parent in kind.__mro__ for name in getattr(vars(parent).get("__init__"), "also_takes", ())}
    for parameter in list(inspect.signature(init).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            text = parameter.annotation
            unpacked = eval(text, init.__globals__) if isinstance(text, str) else text
            named = getattr(next(iter(get_args(unpacked)), None), "__annotations__", None)  # of Unpack[TypedDict]
            if named is None:
                return None
            names.update(named)
        elif parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.add(parameter.name)
    return frozenset(names)


def printable(text: object, keep: str = "") -> str:
    """Return text in which a terminal finds nothing to obey: other than printable characters are replaced.

    Args:
        text: Anything.
        keep: Characters to leave as they are, such as a newline.
    """
    return "".join(character if character.isprintable() or character in keep else "\ufffd" for character in str(text))


def check_range(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    or_null: bool = False,
) -> None:
    """Refuse a setting outside its range. Not-a-number is outside every range.

    Args:
        name: The setting, as the sentence begins.
        value: What was given.
        at_least: Lower bound that is allowed itself.
        above: Lower bound that is not.
        at_most: Upper bound that is allowed itself.
        below: Upper bound that is not; infinity asks for a finite number.
        whole: Whether it must be a whole number.
        or_null: Whether None is allowed.

    Raises:
        ValueError: what was expected, and what came.
    """
    if value is None and or_null:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = (
        is_number
        and value is not None
        and value == value
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
        and (not whole or value == int(value))
    )
    if inside:
        return
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("at least", at_least), ("above", above), ("at most", at_most), ("below", below))
        if bound is not None and abs(bound) != float("inf")
    ]
    if below == float("inf"):
        bounds.append("finite")
    kind = ["a whole number"] if whole and value is not None else []
    got = "null" if value is None else value
    expected = " and ".join([*kind, *bounds] if not kind or not bounds else [f"{kind[0]} of {bounds[0]}", *bounds[1:]])
    raise ValueError(f"{name} must be {expected}{', or null' if or_null else ''}; got {got}")
