"""A run of chains that is not finished: what was drawn, and all that is needed to go on to the same numbers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import Self

from vaebench.hardware.random_streams import rng_state, set_rng_state
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.state import Info, Parameters, State, is_by_dimension
from vaebench.mcmc.whitening import DenseWhitening, LowRankWhitening, Whitening
from vaebench.messages import counted
from vaebench.runs.files import write_atomic

FORMAT = "vaebench-chains-1"
SHARE = 20  # saving takes at most 1 / SHARE of the time
_log = logging.getLogger(__name__)


@dataclass
class Store:
    """What a run of S chains leaves: T kept draws, and a report on every transition after warm-up.

    Attributes:
        positions: Shape (T, S, D).
        acceptance_probability: Shape (T * thinning, S).
        is_divergent: Shape (T * thinning, S).
        total_energy: Shape (T * thinning, S).
        num_gradients: Of each chain, warm-up included, shape (S,).
        thinning: Transitions per kept draw.
        num_done: Transitions after warm-up so far.
        state: Where the chains are.
        statistics: The kernel's own, as means over all transitions after warm-up; those to come count as nothing.
    """

    positions: Tensor
    acceptance_probability: Tensor
    is_divergent: Tensor
    total_energy: Tensor
    num_gradients: Tensor
    thinning: int
    num_done: int = 0
    state: State | None = None
    statistics: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def empty(cls, like: Tensor, num_draws: int, thinning: int) -> Self:
        """Make room for so many draws of chains as in `like`, (S, D); for none, nothing is kept."""
        num_chains, num_dims = like.shape
        reports = like.new_empty((num_draws * thinning, num_chains))
        return cls(
            like.new_empty((num_draws, num_chains, num_dims)),
            reports,
            torch.empty_like(reports, dtype=torch.bool),
            torch.empty_like(reports),
            torch.zeros(num_chains, dtype=torch.int64, device=like.device),
            thinning,
        )

    def add(self, state: State, info: Info, whitening: Whitening | None = None) -> None:
        """Keep what one transition left, its positions in the chains' own coordinates."""
        t, self.state = self.num_done, state
        self.num_done += 1
        self.num_gradients += info.num_gradients
        if not len(self.acceptance_probability):
            return
        self.acceptance_probability[t], self.is_divergent[t] = info.acceptance_probability, info.is_divergent
        self.total_energy[t] = info.total_energy
        for name, value in info.statistics.items():
            self.statistics[name] = self.statistics.get(name, 0.0) + value.double() / len(self.total_energy)
        if self.num_done % self.thinning == 0:
            x = state.position
            self.positions[t // self.thinning] = x if whitening is None else whitening.to_position(x)

    def rows(self) -> dict[str, Tensor]:
        """The parts that are filled."""
        return {
            "positions": self.positions[: self.num_done // self.thinning],
            "acceptance_probability": self.acceptance_probability[: self.num_done],
            "is_divergent": self.is_divergent[: self.num_done],
            "total_energy": self.total_energy[: self.num_done],
        }


class Unfinished:
    """One file that holds a run of chains between two transitions.

    Args:
        path: The file, written already or not.
        belongs_to: What tells this run from every other: a file of another run is not used.
        every: Seconds between two writings, at least; they also take at most a twentieth of the time.

    Attributes:
        seconds_before: How long the chains ran before they were interrupted.
    """

    def __init__(self, path: Path, belongs_to: str, every: float = 30.0) -> None:
        self.path, self.belongs_to, self.every = path, belongs_to, every
        self.seconds_before = 0.0
        self._started = time.monotonic()
        self._next = self._started + every

    def is_due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self._next

    def save(self, store: Store, tuned: Parameters, generator: torch.Generator | None) -> None:
        """Write what was drawn so far, the chains' state and the generator's, atomically."""
        started = time.monotonic()
        assert store.state is not None
        tensors = {**store.rows(), "num_gradients": store.num_gradients}
        tensors |= _tensors_of(store.state, "state")
        tensors |= {f"tuned.{name}": value for name, value in vars(tuned).items() if isinstance(value, Tensor)}
        tensors |= {f"statistics.{name}": value for name, value in store.statistics.items()}
        if tuned.whitening is not None:
            tensors |= {f"whitening.{name}": value for name, value in vars(tuned.whitening).items()}
        tensors |= _generator_state(generator)
        plain = {
            "belongs_to": self.belongs_to,
            "num_done": store.num_done,
            "iteration": store.state.iteration,
            "states": _types_of(store.state, "state"),
            "by_dimension": [name for name, value in tensors.items() if is_by_dimension(value)],
            "temperature": tuned.temperature,
            "seconds": self.seconds_before + started - self._started,
        }
        content = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        write_atomic(self.path, save(content, {FORMAT: json.dumps(plain, sort_keys=True)}))
        ended = time.monotonic()
        self._next = ended + max(self.every, SHARE * (ended - started))
        self._say("kept", store)

    def load(self, store: Store, kernel: Kernel, start: Tensor, generator: torch.Generator | None) -> Parameters | None:
        """Fill the store and set the generator from the file, if it is there and of this run.

        Returns:
            The tuned parameters, or None where there is nothing to go on from; the run then begins anew.
        """
        if not self.path.is_file():
            return None
        try:
            tuned = self._read(store, kernel, start, generator)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("'%s' is damaged (%s); the chains begin anew", self.path, " ".join(str(error).split()))
            return None
        if tuned is None:
            _log.warning("'%s' holds chains of other settings; these begin anew", self.path)
            return None
        self._say("going on from", store)
        return tuned

    def is_of_others(self) -> bool:
        """Whether there is a file, and it is of another run."""
        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                return bool(json.loads((file.metadata() or {})[FORMAT])["belongs_to"] != self.belongs_to)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def discard(self) -> None:
        """Remove the file of a run that is finished."""
        self.path.unlink(missing_ok=True)

    def _say(self, what: str, store: Store) -> None:
        done, total = store.num_done // store.thinning, len(store.positions)
        _log.info("%s %d of %s of each chain, in '%s'", what, done, counted(total, "draw"), self.path)

    def _read(
        self, store: Store, kernel: Kernel, start: Tensor, generator: torch.Generator | None
    ) -> Parameters | None:
        with safe_open(self.path, framework="pt", device="cpu") as file:
            plain = json.loads((file.metadata() or {})[FORMAT])
            if plain["belongs_to"] != self.belongs_to:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        for name in plain["by_dimension"]:  # noise is laid out as the state is, and so is its order
            tensors[name] = tensors[name].T.contiguous().T
        num_done, iteration, temperature = int(plain["num_done"]), int(plain["iteration"]), float(plain["temperature"])
        if not 0 < num_done <= len(store.acceptance_probability):
            raise ValueError(f"it holds {num_done} transitions")
        store.num_done = num_done
        try:
            for name, rows in store.rows().items():
                rows.copy_(_like(tensors[name], rows, name))
            store.num_gradients.copy_(_like(tensors["num_gradients"], store.num_gradients, "num_gradients"))
            kinds = {kind.__name__: kind for kind in kernel.states}
            state = _state(tensors, plain["states"], "state", kinds, iteration, start.device)
            if state.position.shape != start.shape:
                raise ValueError("its chains have another shape")
            store.state = state
            tuned = Parameters(
                temperature=temperature,
                whitening=_whitening(tensors, start),
                **{
                    name.removeprefix("tuned."): value.to(start.device)
                    for name, value in tensors.items()
                    if name.startswith("tuned.")
                },
            )
            store.statistics = {
                name.removeprefix("statistics."): value.to(start.device)
                for name, value in tensors.items()
                if name.startswith("statistics.")
            }
            _set_generator_state(tensors, generator)
            self.seconds_before = float(plain["seconds"])
        except BaseException:
            store.num_done, store.state, store.statistics = 0, None, {}
            store.num_gradients.zero_()
            raise
        return tuned


def _tensors_of(state: State, prefix: str) -> dict[str, Tensor]:
    """The tensors of a state and of states within it, by dotted names."""
    found: dict[str, Tensor] = {}
    for name, value in vars(state).items():
        if isinstance(value, State):
            found |= _tensors_of(value, f"{prefix}.{name}")
        elif isinstance(value, Tensor):
            found[f"{prefix}.{name}"] = value
    return found


def _types_of(state: State, prefix: str) -> dict[str, str]:
    within = {name: value for name, value in vars(state).items() if isinstance(value, State)}
    found = {prefix: type(state).__name__}
    for name, value in within.items():
        found |= _types_of(value, f"{prefix}.{name}")
    return found


def _state(
    tensors: Mapping[str, Tensor],
    types: Mapping[str, str],
    place: str,
    kinds: Mapping[str, type[State]],
    iteration: int,
    device: torch.device,
) -> State:
    kind = kinds[types[place]]
    parts: dict[str, Any] = {}
    for part in fields(kind):
        name = f"{place}.{part.name}"
        if part.name == "iteration":
            parts[part.name] = iteration
        elif name in types:
            parts[part.name] = _state(tensors, types, name, kinds, iteration, device)
        else:
            parts[part.name] = tensors[name].to(device)
    return kind(**parts)


def _whitening(tensors: dict[str, Tensor], like: Tensor) -> Whitening | None:
    found = {
        name.removeprefix("whitening."): value.to(like.device)
        for name, value in tensors.items()
        if name.startswith("whitening.")
    }
    for kind in (DenseWhitening, LowRankWhitening):
        if {part.name for part in fields(kind)} == found.keys():
            return kind(**found)
    return None


def _like(found: Tensor, expected: Tensor, name: str) -> Tensor:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{name} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    return found


def _generator_state(generator: torch.Generator | None) -> dict[str, Tensor]:
    if generator is not None:
        return {"generator": generator.get_state()}
    return {f"rng.{name}": value for name, value in rng_state().items() if isinstance(value, Tensor)}


def _set_generator_state(tensors: dict[str, Tensor], generator: torch.Generator | None) -> None:
    if generator is not None:
        generator.set_state(tensors["generator"])
        return
    found = {name.removeprefix("rng."): value for name, value in tensors.items() if name.startswith("rng.")}
    if "torch" not in found:
        raise KeyError("rng.torch")
    set_rng_state({**rng_state(), **found})
