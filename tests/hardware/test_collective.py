"""Draws and statistics that do not depend on the number of processes."""

import contextlib

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vaebench.hardware import collective

SPLITS = [[(0, 7)], [(0, 3), (3, 7)], [(0, 2), (2, 4), (4, 7)]]


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize("draw", [collective.standard_normal, collective.uniform])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_shards_concatenate_to_the_single_draw(draw, splits, leading):
    like, dim = torch.zeros(1, dtype=torch.float64), len(leading)
    torch.manual_seed(4)
    whole = [draw((*leading, 7, 3), like, dim) for _ in range(2)]  # twice: the generators stay in step
    shards = []
    for start, stop in splits:
        torch.manual_seed(4)
        with collective.shard(start, stop, 7):
            shards.append([draw((*leading, stop - start, 3), like, dim) for _ in range(2)])
    for i in range(2):
        assert torch.equal(torch.cat([parts[i] for parts in shards], dim), whole[i])
    assert whole[0].dtype == torch.float64
    assert not torch.equal(whole[0], whole[1])


def test_in_a_single_process_a_draw_is_torchs_own():
    torch.manual_seed(1)
    ours = collective.standard_normal((3, 2), torch.zeros(1)), collective.uniform((3,), torch.zeros(1))
    torch.manual_seed(1)
    assert torch.equal(ours[0], torch.randn(3, 2))
    assert torch.equal(ours[1], torch.rand(3))


def test_refuses_a_draw_that_is_not_the_shards():
    with (
        collective.shard(0, 3, 7),
        pytest.raises(ValueError, match=r"expected 3 rows in dimension 0 of shape \(4, 2\)"),
    ):
        collective.standard_normal((4, 2), torch.zeros(1))


def test_the_shard_ends_with_its_context():
    assert collective.current_shard() is None
    with collective.shard(0, 3, 7):
        assert collective.current_shard() == collective.Shard(0, 3, 7)
        with collective.shard(1, 2, 9):
            assert collective.current_shard() == collective.Shard(1, 2, 9)
        assert collective.current_shard() == collective.Shard(0, 3, 7)
    assert collective.current_shard() is None
    with contextlib.suppress(RuntimeError), collective.shard(0, 3, 7):
        raise RuntimeError
    assert collective.current_shard() is None


def test_a_shard_of_everything_is_no_shard():
    with collective.shard(0, 7, 7):
        assert collective.current_shard() is None


@pytest.mark.parametrize("total", [1, 2, 7, 10])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shards_cover_the_batch_evenly(monkeypatch, total, processes):
    monkeypatch.setattr(collective, "world_size", lambda: processes)
    shards = []
    for number in range(processes):
        monkeypatch.setattr(collective, "rank", lambda number=number: number)
        shards.append(collective.shard_of(total))
    assert [row for s in shards for row in range(s.start, s.stop)] == list(range(total))
    sizes = [s.stop - s.start for s in shards]
    assert max(sizes) - min(sizes) <= 1
    assert {s.total for s in shards} == {total}


def test_a_permutation_holds_every_number_once():
    assert collective.permutation(50).sort().values.tolist() == list(range(50))
    torch.manual_seed(3)
    first = collective.permutation(50)
    torch.manual_seed(3)
    assert torch.equal(first, collective.permutation(50))


def test_alone_gather_is_the_tensor_itself():
    x = torch.randn(3, 2)
    assert collective.gather(x) is x
    assert (collective.rank(), collective.world_size(), collective.is_distributed()) == (0, 1, False)


def _objective(x_BD, everyone_BD, first):
    """A loss of some rows that couples them to the whole batch, and depends on each row's place in it."""
    place = torch.arange(first, first + len(x_BD), dtype=x_BD.dtype)
    return (place * (x_BD @ everyone_BD.T).logsumexp(-1)).sum()


def _worker(number, file, total, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=number, world_size=2)
    try:
        torch.manual_seed(5)
        x_ND = torch.randn(total, 3, dtype=torch.float64)
        part = collective.shard_of(total)
        x = x_ND[part.start : part.stop].clone().requires_grad_()
        with collective.shard(part.start, part.stop, part.total):
            everyone = collective.gather(x)
            _objective(x, everyone, part.start).backward()
            labels = collective.gather(torch.arange(part.start, part.stop))
            noise = collective.standard_normal((part.stop - part.start, 2), x)
            try:
                collective.gather(x[:1])
                refusal = ""
            except ValueError as error:
                refusal = str(error)
        answer = (collective.rank(), collective.world_size(), everyone.detach(), x.grad, labels, noise, refusal)
        torch.save(answer, results / f"{number}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_gather_forward_and_backward_as_one_would(tmp_path):
    total = 7  # odd: one process holds a row more
    mp.start_processes(_worker, (tmp_path / "init", total, tmp_path), nprocs=2, start_method="forkserver")
    answers = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2)]

    torch.manual_seed(5)
    x = torch.randn(total, 3, dtype=torch.float64, requires_grad=True)
    _objective(x, x, 0).backward()
    noise = torch.randn(total, 2, dtype=torch.float64)

    for number, (rank, world_size, everyone, _, labels, _, refusal) in enumerate(answers):
        assert (rank, world_size) == (number, 2)
        assert torch.equal(everyone, x.detach())
        assert labels.tolist() == list(range(total))
        assert "rows of this process's shard, got 1" in refusal
    torch.testing.assert_close(torch.cat([answer[3] for answer in answers]), x.grad)
    assert torch.equal(torch.cat([answer[5] for answer in answers]), noise)
