from __future__ import annotations

import gzip

import pytest
import torch

from vaebench.data.digits import Digits


def test_all_digits_are_there_on_the_grid_of_sixteenths():
    data = Digits()
    x = torch.cat([data.train.x, data.validation.x, data.test.x])
    assert x.shape == (1797, 1, 8, 8)
    assert x.dtype == torch.float32
    counts = x * 16
    assert torch.equal(counts, counts.round())
    assert counts.min() == 0
    assert counts.max() == 16
    assert counts.unique().numel() == 17
    assert (len(data.train), len(data.validation), len(data.test)) == (1437, 180, 180)


def test_splits_are_disjoint_and_cover_scikit_learns_digits():
    from sklearn.datasets import load_digits

    reference = load_digits()
    data = Digits()

    def rows(split) -> list[tuple[int, ...]]:
        pixels = (split.x.reshape(len(split), -1) * 16).to(torch.int64)
        return [(*p, label) for p, label in zip(pixels.tolist(), split.y.tolist(), strict=True)]

    ours = sorted(rows(data.train) + rows(data.validation) + rows(data.test))
    theirs = sorted(
        (*p, label) for p, label in zip(reference.data.astype(int).tolist(), reference.target.tolist(), strict=True)
    )
    assert ours == theirs


def test_the_shuffle_never_changes():
    data = Digits()
    assert data.train.y[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]
    assert data.test.y[-10:].tolist() == [1, 4, 8, 4, 5, 3, 3, 7, 7, 8]
    assert set(data.validation.y.tolist()) == set(range(10))


def test_the_likelihood_counts_to_sixteen():
    data = Digits()
    assert data.likelihood_name == "binomial"
    assert data.likelihood_config() == {"_target_": "vaebench.distributions.likelihoods.Binomial", "total_count": 16}
    assert data.likelihood.total_count == 16
    assert data.shape == (1, 8, 8)
    assert data.num_classes == 10
    logits = torch.zeros(2, 1, 8, 8)
    assert torch.isfinite(data.likelihood(logits, event_ndim=3).log_prob(data.train.batch([0, 1]).x)).all()


def test_binarised_digits_take_a_bernoulli():
    data = Digits(binarization="threshold")
    assert torch.equal(data.train.x, (Digits().train.x > 0.5).float())
    assert data.likelihood_config() == {"_target_": "vaebench.distributions.likelihoods.Bernoulli"}


def test_fewer_examples_are_a_part_of_all():
    few, all_ = Digits(num_examples=50), Digits()
    assert len(few.train) == 50
    assert len(few.validation) == 180
    same = (few.train.x[:, None] == all_.train.x[None]).flatten(2).all(-1)
    assert same.any(1).all()
    assert torch.equal(few.train.x[:20], Digits(num_examples=20).train.x)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_validation": 1797}, r"dataset.num_validation from 0 to 1796"),
        ({"num_test": 1617}, r"dataset.num_test from 0 to 1616"),
        ({"num_test": -1}, r"dataset.num_test"),
        ({"num_test": 0.1}, r"dataset.num_test to be a whole number, got 0.1"),
        ({"num_examples": 0}, r"dataset.num_examples from 1 to 1437"),
        ({"num_examples": 1438}, r"dataset.num_examples from 1 to 1437"),
        ({"binarization": "treshold"}, r"dataset.binarization .* 'treshold'; did you mean 'threshold'"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Digits(**arguments)


def _write(folder, lines):
    with gzip.open(folder / "digits.csv.gz", "wt") as file:
        file.writelines(",".join(map(str, line)) + "\n" for line in lines)


def test_a_file_in_root_takes_the_place_of_scikit_learns(tmp_path):
    _write(tmp_path, [[i % 17] * 64 + [i % 10] for i in range(20)])
    data = Digits(root=str(tmp_path), num_validation=4, num_test=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 4)
    x, y = (torch.cat([getattr(split, name) for split in (data.train, data.validation, data.test)]) for name in "xy")
    counts = (x * 16).round().flatten(1)
    assert torch.equal(counts.amin(1), counts.amax(1))
    assert sorted(zip(counts[:, 0].tolist(), y.tolist(), strict=True)) == sorted((i % 17, i % 10) for i in range(20))


def test_a_root_without_the_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"expected 'digits.csv.gz' in '.*' \(dataset.root\), which lacks it"):
        Digits(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"expected dataset\.root to be a folder"):
        Digits(root=__file__)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([[17] * 64 + [0]], "values up to 17"),
        ([[1] * 64 + [10]], "a label up to 9"),
        ([[1] * 64], "got 64 columns"),
        ([["a"] * 65], "cannot read"),
        ([[300] * 64 + [0]], "cannot read"),
        ([], "cannot read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, lines, sentence):
    _write(tmp_path, lines)
    with pytest.raises(ValueError, match=sentence) as error:
        Digits(root=str(tmp_path))
    assert "dataset.root" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_compressed_is_named(tmp_path):
    (tmp_path / "digits.csv.gz").write_bytes(b"1,2")
    with pytest.raises(ValueError, match=r"cannot read .* \(dataset.root\)"):
        Digits(root=str(tmp_path))


def test_a_table_that_unfolds_is_one_sentence(tmp_path):
    with gzip.open(tmp_path / "digits.csv.gz", "wb") as file:
        file.write(b"1," * 9_000_000)  # in one line
    with pytest.raises(ValueError, match=r"digits\.csv\.gz' \(dataset\.root\): it unfolds to more than 16777216 bytes"):
        Digits(root=str(tmp_path))
