"""Other names of constructor arguments, those that users know from elsewhere, in terms of ours."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Literal, ParamSpec

from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.messages import check_range, did_you_mean
from vaebench.schedules import LinearScheduler

P = ParamSpec("P")
Translation = Callable[..., Mapping[str, Any]]
LIKELIHOODS = {"mse": "gaussian", "bce": "bernoulli"}


def also_takes(
    *translations: Translation,
) -> Callable[[Callable[Concatenate[Any, P], None]], Callable[Concatenate[Any, P], None]]:
    """Let a constructor take the arguments of `translations`, which return what it calls them itself.

    The signature does not change, since configurations use our names only.

    Raises:
        ValueError: in the constructor, if an argument is given by two names.
    """

    def decorate(init: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
        @functools.wraps(init)
        def constructor(self: Any, *args: P.args, **given: P.kwargs) -> None:
            for translation in translations:
                names = [name for name in inspect.signature(translation).parameters if name in given]
                if not names:
                    continue
                for name, value in translation(**{name: given.pop(name) for name in names}).items():
                    if name in given:
                        raise ValueError(f"{name} is what {' and '.join(names)} stand for; give one of them")
                    given[name] = value
            init(self, *args, **given)

        names = {name for translation in translations for name in inspect.signature(translation).parameters}
        constructor.also_takes = names  # type: ignore[attr-defined]
        return constructor

    return decorate


def likelihood_of(*, reconstruction_loss_type: Literal["mse", "bce"]) -> dict[str, Any]:
    """Return the likelihood whose negative logarithm the loss is: half the squared error, or the cross-entropy."""
    if reconstruction_loss_type not in LIKELIHOODS:
        near = did_you_mean(str(reconstruction_loss_type), LIKELIHOODS)
        raise ValueError(f"reconstruction_loss_type: unknown name {reconstruction_loss_type!r}{near}")
    return {"likelihood": LIKELIHOODS[reconstruction_loss_type]}


def weight_of_one(*, kl_weight: float) -> dict[str, Any]:
    """Return nothing for a weight of 1, that of every model without a beta.

    Raises:
        ValueError: for another weight.
    """
    if kl_weight != 1:
        raise ValueError(f"kl_weight must be 1 here; for another weight of the rate use BetaVAE, got {kl_weight}")
    return {}


def beta_of(
    *, kl_weight: float | None = None, beta_default: float | None = None, beta_warmup_steps: int = 0
) -> dict[str, Any]:
    """Return beta, 1 where it is not given: a number, or a linear rise to it from 0 at step 0."""
    if kl_weight is not None and beta_default is not None:
        raise ValueError(f"beta_default and kl_weight are the same; give one, got {beta_default} and {kl_weight}")
    value = next((given for given in (beta_default, kl_weight) if given is not None), 1.0)
    check_range("beta_default", value, at_least=0, below=math.inf)
    check_range("beta_warmup_steps", beta_warmup_steps, at_least=0, whole=True)
    return {"beta": LinearScheduler(0.0, value, beta_warmup_steps) if beta_warmup_steps else value}


def capacity_of(
    *, use_capacity_control: bool = True, beta_default: float | None = None, beta_warmup_steps: int = 0
) -> dict[str, Any]:
    """Return nothing: capacity control is always on, and no beta stands beside it.

    Raises:
        ValueError: for a beta, or without control.
    """
    if not use_capacity_control:
        raise ValueError("use_capacity_control must be true here; without it use BetaVAE")
    if beta_default is not None or beta_warmup_steps:
        raise ValueError("beta_default has no place beside a capacity, whose weight is gamma; leave it out")
    return {}


def quantizer_of(
    *,
    latent_dim: int | None = None,
    num_embeddings: int = 512,
    embedding_dim: int = 64,
    commitment_cost: float = 0.25,
) -> dict[str, Any]:
    """Return a vector quantiser of these sizes, which learns by gradients of the codebook loss.

    Raises:
        ValueError: if `latent_dim`, the length of a latent vector, is not a whole number of codes.
    """
    if latent_dim is not None and (latent_dim < 1 or latent_dim % embedding_dim):
        raise ValueError(f"latent_dim must be a multiple of embedding_dim, which is {embedding_dim}; got {latent_dim}")
    return {"quantizer": VectorQuantizer(num_embeddings, embedding_dim, commitment_cost, update="gradient")}
