"""Compiled transitions: the draws of uncompiled ones within rounding, in fewer passes over memory.

The compiler is Inductor, the one behind `torch.compile`. It gets the graphs of the pieces directly, because what
`torch.compile` checks at every call takes longer than a piece itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.kernel import EAGER, Caller, CompilableKernel, Kernel
from vaebench.mcmc.state import Draw, Info, Parameters, State

T = TypeVar("T")
BLOCKS = (4, 1)  # steps of a trajectory in one graph; every length is a sum of these
_log = logging.getLogger(__name__)


class CompiledStep:
    """Makes the transitions of one kernel on one energy, compiled. Where that fails, says so and makes them as ever.

    Args:
        kernel: The transition; its schedules may change its numbers, but not what it is.

    Raises:
        ValueError: if the kernel cannot be compiled.
    """

    def __init__(self, kernel: Kernel) -> None:
        if not isinstance(kernel, CompilableKernel):
            raise ValueError(
                f"compile must be false for kernel={kernel.name}, whose transitions are no fixed sequence of tensor "
                "operations; hmc, mala and langevin can be compiled"
            )
        self._call: Caller | None = None
        self._temperatures: dict[float, Tensor] = {}

    def __call__(
        self, kernel: CompilableKernel, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
    ) -> tuple[State, Info]:
        """Make one transition in every chain; arguments as in `Kernel.step`. The first call compiles."""
        if self._call is None:
            self._call = compile_pieces(kernel, state, energy, self._of_tensors(parameters))
        if self._call is EAGER:
            return kernel.step(state, energy, parameters, draw)
        moved, info = kernel.step_in_pieces(self._call, state, energy, self._of_tensors(parameters), draw)
        return replace(moved, iteration=state.iteration + 1), info

    def _of_tensors(self, parameters: Parameters) -> Parameters:
        heat = parameters.temperature
        if isinstance(heat, Tensor):
            return parameters
        if heat not in self._temperatures:  # a number would be a constant of the graphs
            self._temperatures = {heat: parameters.step_size.new_tensor(heat)}
        return replace(parameters, temperature=self._temperatures[heat])


def compile_pieces(
    kernel: CompilableKernel, state: State, energy: BaseEnergyFunction, parameters: Parameters
) -> Caller:
    """Compile every piece that a transition may need, in one that nobody sees, with random numbers of its own.

    Returns:
        What calls the pieces: uncompiled if one of them cannot be compiled, so that no transition is half compiled.
    """
    call, started = Compiling(), time.perf_counter()
    energy.value_and_grad(state.position)  # fills what an energy keeps for so many chains
    call.needs_all_blocks = True
    try:
        kernel.step_in_pieces(call, state, energy, parameters, Draw(torch.Generator(state.position.device)))
    except Exception as error:
        reason = next(iter(str(error).split("\n")), "").strip() or type(error).__name__
        _log.warning("compile=true: kernel=%s runs uncompiled, because its compilation failed: %s", kernel.name, reason)
        return EAGER
    call.needs_all_blocks = False
    _log.info("compiled the transitions of kernel=%s in %.1f s", kernel.name, time.perf_counter() - started)
    return call


class Compiling(Caller):
    """Compiles every piece that it has to call, once for each number of steps and each memory layout.

    The energy is a part of the graphs: pieces are called with one only.

    Attributes:
        needs_all_blocks: Whether a trajectory is one block of each size instead of the length that is asked for.
    """

    def __init__(self) -> None:
        self.graphs: dict[tuple[object, ...], Graph] = {}
        self.needs_all_blocks = False

    def __call__(self, piece: Callable[..., T], *arguments: Any) -> T:
        """Call one piece."""
        tensors = tensors_in(arguments)
        key = (piece, *[value for value in arguments if isinstance(value, int)], *[x.stride() for x in tensors])
        graph = self.graphs.get(key)
        if graph is None:
            graph = self.graphs[key] = Graph(piece, arguments)
        return cast(T, graph(tensors))

    def blocks(self, num_steps: int) -> tuple[int, ...]:
        """Few sizes make up every length."""
        largest, smallest = BLOCKS
        if self.needs_all_blocks:
            return BLOCKS
        return (largest,) * (num_steps // largest) + (smallest,) * (num_steps % largest)


class Graph:
    """A compiled piece.

    Args:
        piece: A function of tensors, and of states and parameters that hold them, whose result is one of these or a
            tuple of them. All else in its arguments is a constant of the graph.
        arguments: Those of the first call, whose shapes and layouts are those of every call.
    """

    def __init__(self, piece: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        from torch._inductor import config, standalone_compile
        from torch.fx.experimental.proxy_tensor import make_fx

        tensors = tensors_in(arguments)

        def flat(*given: Tensor) -> list[Tensor]:
            rest = iter(given)
            result = piece(*[mapped(value, lambda _: next(rest)) for value in arguments])
            self.form = mapped(result, lambda x: x.new_empty(0))
            # A mask takes far longer to store than numbers do.
            return [x.to(given[0].dtype) if x.dtype == torch.bool else x for x in tensors_in((result,))]

        graph = make_fx(flat, FACTORS)(*tensors)
        for name, constant in list(graph.named_buffers()):
            graph.register_buffer(name, constant.detach())  # what has a history cannot be copied
        with config.patch(size_asserts=False, alignment_asserts=False):  # `Compiling` looks at layouts itself
            self.function = standalone_compile(graph, [*tensors], dynamic_shapes="from_example_inputs")
        if not agree(self.function(*tensors), flat(*tensors), tensors):
            raise RuntimeError(f"the compiled {piece.__name__} gives other numbers than the uncompiled one")

    def __call__(self, tensors: list[Tensor]) -> Any:
        """Return what the piece returns for these tensors in its arguments."""
        results = iter(self.function(*tensors))
        return mapped(self.form, lambda like: next(results) > 0 if like.dtype == torch.bool else next(results))


def agree(results: Sequence[Tensor], expected: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    """Whether results are as expected within rounding, that of what they were computed from.

    A tenth of the entries may differ: where rounding decides about an acceptance, a whole row does.
    """
    magnitude = max(float(x.abs().double().nan_to_num(posinf=0).mean()) for x in (*expected, *given))
    for x, y in zip(results, expected, strict=True):
        tolerance = magnitude * torch.finfo(y.dtype).eps ** 0.5 if y.is_floating_point() else 0
        close = (x == y) | ((x - y).abs() <= tolerance) | (x.isnan() & y.isnan())
        if close.double().mean() < 0.9:
            return False
    return True


def _add(x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    return NotImplemented if alpha == 1 else x + alpha * y


def _add_in_place(x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    return NotImplemented if alpha == 1 else x.add_(alpha * y)


# Inductor forgets alpha where x is a matrix product (https://github.com/pytorch/pytorch/issues/167313).
FACTORS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.add.Tensor: _add,
    torch.ops.aten.add_.Tensor: _add_in_place,
}


def tensors_in(values: tuple[Any, ...]) -> list[Tensor]:
    """All tensors in some values, in the order of `mapped`, each of the shape that it has."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple):
            found += tensors_in(value)
        elif isinstance(value, (State, Parameters, Info)):
            found += [part for part in vars(value).values() if isinstance(part, Tensor)]
    return found


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value, with another tensor in the place of each."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple([mapped(part, change) for part in value])
    if isinstance(value, (State, Parameters, Info)):
        parts: dict[str, Any] = {
            name: change(part) if isinstance(part, Tensor) else part for name, part in vars(value).items()
        }
        return type(value)(**parts)
    return value
