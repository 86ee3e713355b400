from __future__ import annotations

import itertools

import pytest
import torch

from vaebench.data.binarization import draw
from vaebench.data.io.source import Source
from vaebench.data.split import DataSplit
from vaebench.hardware import collective


class Rows(Source):
    """Rows of a tensor, as if they were on disk; remembers what was read."""

    def __init__(self, x: torch.Tensor) -> None:
        self._x, self.shape, self.dtype, self.reads = x, tuple(x.shape[1:]), x.dtype, []

    def __len__(self) -> int:
        return len(self._x)

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        self.reads.append(indices.tolist())
        return self._x[indices]

    def take(self, indices: torch.Tensor) -> Source:
        return Rows(self._x[indices])


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randint(0, 256, (23, 3, 5, 4), dtype=torch.uint8)


@pytest.fixture
def y() -> torch.Tensor:
    return torch.arange(23) % 7


def kinds(x: torch.Tensor, y: torch.Tensor, **arguments) -> dict[str, DataSplit]:
    return {
        "floats": DataSplit(x, y, **arguments),
        "bytes": DataSplit(x, y, float_budget=0, **arguments),
        "streamed": DataSplit(Rows(x), y, **arguments),
    }


@pytest.mark.parametrize("kind", ["floats", "bytes", "streamed"])
def test_a_batch_is_what_direct_indexing_gives(kind, x, y):
    split = kinds(x, y)[kind]
    rows = torch.tensor([22, 0, 7, 7, 3])
    batch = split.batch(rows)
    assert torch.equal(batch.x, x[rows].to(torch.float32) / 255)
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.y, y[rows])
    assert torch.equal(batch.index, rows)
    assert split.batch(rows.tolist()).x.equal(batch.x)
    assert len(split) == 23
    assert split.shape == (3, 5, 4)


@pytest.mark.parametrize("kind", ["floats", "bytes", "streamed"])
@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_batches_cover_the_order_and_equal_single_batches(kind, prefetch, x, y):
    split = kinds(x, y)[kind]
    order = torch.randperm(23)
    batches = list(split.batches(order, 5, prefetch=prefetch))
    assert [len(b) for b in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([b.index for b in batches]), order)
    for batch in batches:
        again = split.batch(batch.index)
        assert torch.equal(batch.x, again.x)
        assert torch.equal(batch.y, again.y)


def test_small_bytes_become_floats_once_and_large_ones_stay(x):
    small, large = DataSplit(x), DataSplit(x, float_budget=4 * x.numel() - 1)
    assert small.nbytes == 4 * x.numel()
    assert large.nbytes == x.numel()
    assert torch.equal(small.x, large.x)
    assert small.batch([0]).x.dtype == large.batch([0]).x.dtype == torch.float32


def test_another_scale_is_exact():
    assert torch.equal(
        DataSplit(torch.arange(17, dtype=torch.uint8)[:, None], scale=16).x * 16, torch.arange(17.0)[:, None]
    )


def test_streaming_reads_ahead_but_no_further(x):
    source = Rows(x)
    batches = DataSplit(source).batches(torch.arange(23), 2, prefetch=3)
    next(batches)
    # Closing waits for the reader; what it has not begun is dropped.
    batches.close()
    assert 1 <= len(source.reads) <= 4
    assert source.reads == [[2 * i, 2 * i + 1] for i in range(len(source.reads))]


def test_an_unreadable_row_is_reported_by_the_batch_that_needs_it(x):
    class Broken(Rows):
        def read(self, indices: torch.Tensor) -> torch.Tensor:
            if 7 in indices:
                raise ValueError("cannot read row 7")
            return super().read(indices)

    batches = DataSplit(Broken(x)).batches(batch_size=3)
    assert [next(batches).index.tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="cannot read row 7"):
        next(batches)


@pytest.mark.parametrize("kind", ["floats", "bytes", "streamed"])
def test_a_subset_counts_from_zero_again(kind, x, y):
    part = kinds(x, y)[kind].subset([5, 1, 22])
    assert len(part) == 3
    batch = part.batch([2, 0])
    assert torch.equal(batch.x, x[[22, 5]] / 255)
    assert torch.equal(batch.y, y[[22, 5]])
    assert batch.index.tolist() == [2, 0]
    assert len(part.subset([])) == 0


@pytest.mark.parametrize("indices", [[23], [-1], [0, 99]])
def test_a_subset_beyond_the_split_is_refused(indices, x):
    with pytest.raises(ValueError, match="expected indices from 0 to 22"):
        DataSplit(x).subset(indices)


def test_a_streamed_split_has_no_tensor_of_everything(x):
    split = DataSplit(Rows(x))
    assert not split.in_memory
    with pytest.raises(ValueError, match=r"dataset\.memory_gib"):
        _ = split.x


def test_labels_must_fit(x):
    with pytest.raises(ValueError, match="expected 23 labels, one for each example, got 22"):
        DataSplit(x, torch.zeros(22))


@pytest.mark.parametrize("kind", ["floats", "bytes", "streamed"])
def test_to_moves_everything_that_a_batch_holds(kind, x, y):
    # The meta device stands for any other: it shows where tensors are made without one being there.
    split = kinds(x, y)[kind].to("meta")
    assert split.device.type == "meta"
    if kind != "streamed":
        batch = split.batch(torch.tensor([0, 1]))
        assert {batch.x.device.type, batch.y.device.type, batch.index.device.type} == {"meta"}
    else:
        for batch in split.batches(batch_size=10):
            assert {batch.x.device.type, batch.y.device.type, batch.index.device.type} == {"meta"}
    assert split.subset(torch.tensor([0])).device.type == "meta" if kind == "streamed" else True


@pytest.mark.parametrize("kind", ["floats", "streamed"])
def test_random_transforms_are_drawn_in_the_order_of_batches(kind, x, y):
    split = kinds(x, y, transform=draw)[kind]
    order = torch.arange(23)
    torch.manual_seed(3)
    looped = [split.batch(rows).x for rows in order.split(4)]
    after = torch.get_rng_state()
    torch.manual_seed(3)
    streamed = [batch.x for batch in split.batches(order, 4, prefetch=3)]
    assert all(torch.equal(a, b) for a, b in zip(looped, streamed, strict=True))
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(3)
    list(itertools.islice(split.batches(order, 4, prefetch=3), 2))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    for rows in order.split(4)[:2]:
        split.batch(rows)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["floats", "streamed"])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_together_see_what_one_would(kind, num_processes, x, y, monkeypatch):
    split = kinds(x, y, transform=draw)[kind]
    order = torch.randperm(23)
    torch.manual_seed(5)
    alone = list(split.batches(order, 8))
    shares = []
    for rank in range(num_processes):
        monkeypatch.setattr(collective, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(collective, "world_size", lambda: num_processes)
        torch.manual_seed(5)
        shares.append(list(split.batches(order, 8, sharded=True)))
    for i, batch in enumerate(alone):
        assert torch.equal(torch.cat([share[i].x for share in shares]), batch.x)
        assert torch.equal(torch.cat([share[i].y for share in shares]), batch.y)
        assert torch.equal(torch.cat([share[i].index for share in shares]), batch.index)


def test_no_examples_no_batches(x):
    assert list(DataSplit(x[:0]).batches()) == []
    assert list(DataSplit(Rows(x)).batches(torch.arange(0))) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["floats", "bytes", "streamed"])
def test_batches_on_the_gpu_are_those_of_the_cpu(kind, x, y):
    split = kinds(x, y)[kind]
    order = torch.randperm(23)
    reference = list(split.batches(order, 5))
    for moved in (split.to("cuda").batches(order, 5), split.batches(order, 5, device="cuda")):
        for ours, theirs in zip(moved, reference, strict=True):
            assert ours.x.is_cuda
            assert torch.equal(ours.x.cpu(), theirs.x)
            assert torch.equal(ours.y.cpu(), theirs.y)
            assert torch.equal(ours.index.cpu(), theirs.index)


def test_contexts_and_factors_travel_with_their_examples():
    x = torch.arange(6.0)[:, None]
    split = DataSplit(x, context=x * 10, factors=x.long() + 100)
    for part in (split, split.to("cpu"), split.subset([0, 2, 1, 3, 4, 5]).subset([0, 2, 1, 3, 4, 5])):
        batch = part.batch([4, 1])
        assert batch.context.tolist() == [[40.0], [10.0]]
        assert batch.factors.tolist() == [[104], [101]]
    with pytest.raises(ValueError, match="expected 6 contexts, one for each example, got 5"):
        DataSplit(x, context=x[:5])
    with pytest.raises(ValueError, match="expected 6 rows"):
        DataSplit(x, factors=x[:5].long())


def test_precision_of_a_float64_model():
    split = DataSplit(torch.arange(256, dtype=torch.uint8)[:, None], float_budget=0).to("cpu", torch.float64)
    batch = split.batch(torch.arange(256))
    assert batch.x.dtype == torch.float64
    assert torch.equal(batch.x[:, 0] * 255, torch.arange(256).double())
    assert split.subset([1]).batch([0]).x.dtype == torch.float64


def test_fingerprints_see_values_order_and_what_goes_with_them():
    x = torch.arange(12.0).reshape(6, 2) / 12
    y = torch.arange(6)
    same = DataSplit(x.clone(), y.clone()).fingerprint()
    assert DataSplit(x, y).fingerprint() == same
    other = x.clone()
    other[5, 1] += 1e-6
    others = [
        DataSplit(other, y),
        DataSplit(x.flip(0), y),
        DataSplit(x[:5], y[:5]),
        DataSplit(x),
        DataSplit(x, y.flip(0)),
    ]
    others += [DataSplit(x, y, factors=x.long()), DataSplit(x, y, context=x), DataSplit(x.reshape(6, 2, 1), y)]
    found = [split.fingerprint() for split in others]
    assert len({same, *found}) == len(found) + 1
    assert len(DataSplit(x[:0]).fingerprint()) == 64


def test_the_fingerprint_of_a_streamed_split_sees_its_order():
    x = torch.arange(10.0)[:, None]
    streamed = DataSplit(Rows(x))
    assert streamed.fingerprint() == DataSplit(Rows(x.clone())).fingerprint()
    assert streamed.fingerprint() != streamed.subset(torch.arange(9, -1, -1)).fingerprint()
