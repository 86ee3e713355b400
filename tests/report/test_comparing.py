from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from safetensors.numpy import save

from vaebench.report.comparing import LEVEL, ExampleFile, Measured, difference, holm, ranks, two_sided
from vaebench.runs.run import write_atomic


def seeds(values, **known):
    return Measured(float(np.mean(values)), len(values), float(np.std(values, ddof=1)), None, **known)


def one(mean, error=None, num_examples=None, examples=None, data=None):
    return Measured(mean, 1, None, error, num_examples, examples, data)


def test_quantiles_of_students_t():
    # From tables: t_{0.975} is 12.706 with 1, 4.303 with 2 and 1.960 with infinitely many degrees of freedom.
    for dof, quantile in ((1, 12.706), (2, 4.303), (10, 2.228), (math.inf, 1.960)):
        assert two_sided(quantile, 1.0, dof) == pytest.approx(0.05, rel=1e-3)
    assert two_sided(0.0, 0.0, 3) == 1
    assert two_sided(0.1, 0.0, 3) == 0


def test_welch_by_hand():
    found = difference(seeds([1.0, 2.0, 3.0]), seeds([4.0, 8.0]))
    # variances 1 / 3 and 8 / 2; dof (13 / 3)^2 / ((1/9) / 2 + 16 / 1)
    assert found.value == -4
    assert found.error == pytest.approx(math.sqrt(13 / 3))
    assert found.dof == pytest.approx((13 / 3) ** 2 / (1 / 18 + 16))
    assert found.how == "3 and 2 seeds"


def test_a_single_seed_beside_several_borrows_their_spread():
    found = difference(seeds([0.0, 1.0, 2.0]), one(5.0, 0.1))
    assert found.error == pytest.approx(math.sqrt(1 + 1 / 3))
    assert found.dof == pytest.approx(2)


def test_pairing_removes_what_the_examples_share():
    rng = np.random.default_rng(0)
    hard = 30 * rng.standard_normal(180)
    better, worse = hard + 3 + rng.standard_normal(180), hard
    a, b = (one(x.mean(), x.std(ddof=1) / 180**0.5, num_examples=180, examples=x) for x in (better, worse))
    found = difference(a, b)
    expected = (better - worse).std(ddof=1) / 180**0.5
    assert found.error == pytest.approx(expected)
    assert found.dof == pytest.approx(179)
    assert found.how == "180 examples, paired"
    unpaired = difference(one(a.mean, a.error, 180), one(b.mean, b.error, 180))
    assert unpaired.error > 20 * found.error
    assert unpaired.how == "examples, not paired"
    assert ranks([a, b], "higher") == [1, 2]
    assert ranks([a, b], "lower") == [2, 1]


def test_other_examples_are_not_paired():
    x = np.arange(10.0)
    a, b = one(4.5, 1.0, 10, x, data="these"), one(4.5, 1.0, 10, x, data="those")
    assert difference(a, b).how == "examples, not paired"
    assert difference(a, one(4.5, 1.0, 9, x[1:], data="these")).how == "examples, not paired"


def test_seeds_and_examples_add_up():
    rng = np.random.default_rng(1)
    a = seeds([1.0, 2.0, 3.0], examples=rng.standard_normal(50))
    b = seeds([1.0, 2.0, 6.0], examples=rng.standard_normal(50))
    of_examples = (a.examples - b.examples).var(ddof=1) / 50
    assert difference(a, b).error == pytest.approx(math.sqrt(1 / 3 + 7 / 3 + of_examples))


def test_where_no_error_is_known_nothing_is_told_apart():
    found = difference(one(1.0), one(2.0))
    assert (found.error, found.p) == (None, 1)
    assert ranks([one(1.0), one(2.0)], "higher") == [1, 1]


def test_holm_by_hand():
    # sorted: 0.01 <= 0.05 / 4, 0.012 <= 0.05 / 3, 0.03 > 0.05 / 2, and so 0.04 stands too
    assert holm([0.04, 0.01, 0.03, 0.012]) == [False, True, False, True]
    assert holm([]) == []


@pytest.mark.parametrize(("num_seeds", "num_configurations"), [(2, 2), (2, 5), (3, 2), (3, 5), (10, 5)])
def test_equal_configurations_seldom_fall_below_the_first(num_seeds, num_configurations):
    rng = np.random.default_rng(2)
    repetitions = 1500
    wrong = 0
    for _ in range(repetitions):
        groups = [seeds(rng.standard_normal(num_seeds)) for _ in range(num_configurations)]
        wrong += any(rank != 1 for rank in ranks(groups, "higher"))
    assert wrong / repetitions < LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / repetitions)


def test_a_difference_of_many_spreads_is_seen():
    rng = np.random.default_rng(3)
    found = sum(
        ranks([seeds(rng.standard_normal(3)), seeds(8 + rng.standard_normal(3))], "higher") == [2, 1]
        for _ in range(200)
    )
    assert found > 150


def test_false_alarms_over_paired_examples_keep_the_level():
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(1500):
        hard = 10 * rng.standard_normal(40)
        arrays = [hard + rng.standard_normal(40) for _ in range(3)]
        groups = [one(x.mean(), x.std(ddof=1) / 40**0.5, 40, x) for x in arrays]
        wrong += any(rank != 1 for rank in ranks(groups, "higher"))
    assert wrong / 1500 < LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / 1500)


def test_files_of_values(tmp_path):
    path = tmp_path / "elbo.safetensors"
    content = save({"elbo_nats": np.arange(3, dtype=np.float32), "whole": np.arange(3)})
    write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    assert ExampleFile(path, digest, "elbo_nats").load().tolist() == [0, 1, 2]
    assert ExampleFile(path, digest, "rate_nats").load() is None
    assert ExampleFile(path, digest, "whole").load() is None
    assert ExampleFile(path, "0" * 64, "elbo_nats").load() is None  # it belongs to another record
    assert ExampleFile(tmp_path / "none", digest, "elbo_nats").load() is None
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\xff" * 20)
    assert ExampleFile(damaged, hashlib.sha256(b"\xff" * 20).hexdigest(), "elbo_nats").load() is None
    link = tmp_path / "link"
    link.symlink_to(path)
    assert ExampleFile(link, digest, "elbo_nats").load() is None
