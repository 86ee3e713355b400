import math

import pytest
import torch

from vaebench.mcmc import diagnostics
from vaebench.mcmc.diagnostics import Diagnostics, verdict

CASES = {
    "independent": (1000, 4, 0.0),
    "correlated": (1000, 4, 0.9),
    "antithetic": (1000, 4, -0.6),
    "short odd": (51, 3, 0.5),
    "one chain": (400, 1, 0.3),
    "slow": (400, 4, 0.99),
}


def autoregressive(num_draws: int, num_chains: int, rho: float, num_dims: int = 5) -> torch.Tensor:
    noise = torch.randn(num_draws, num_chains, num_dims, dtype=torch.float64)
    x = torch.empty_like(noise)
    x[0] = noise[0]
    for t in range(1, num_draws):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    x[..., 1] = x[..., 1].exp()  # skewed
    x[..., 2] = x[..., 2] ** 3  # heavy tails
    x[..., 3] = x[..., 3].round()  # ties
    x[..., 4] += 0.3 * torch.arange(num_chains)  # chains that disagree
    return x


@pytest.fixture(scope="module")
def arviz():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("arviz")


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_arviz(arviz, case):
    x = autoregressive(*CASES[case])
    ours = {
        "ess_bulk": diagnostics.ess_bulk(x),
        "ess_tail": diagnostics.ess_tail(x),
        "ess_mean": diagnostics.ess_mean(x),
        "mcse_mean": diagnostics.mcse_mean(x),
        "r_hat": diagnostics.r_hat(x),
    }
    for d in range(x.shape[-1]):
        chain = x[..., d].T.numpy()
        theirs = {
            "ess_bulk": arviz.ess(chain, method="bulk"),
            "ess_tail": arviz.ess(chain, method="tail", prob=(0.05, 0.95)),
            "ess_mean": arviz.ess(chain, method="mean"),
            "mcse_mean": arviz.mcse(chain, method="mean"),
        }
        if x.shape[1] > 1:  # ArviZ gives no value for one chain; ours compares its halves
            theirs["r_hat"] = arviz.rhat(chain, method="rank")
        for name, value in theirs.items():
            assert float(ours[name][d]) == pytest.approx(float(value), rel=0.01), (name, d)


def test_e_bfmi_agrees_with_arviz(arviz):
    energy = autoregressive(300, 4, 0.5)[..., 0]
    torch.testing.assert_close(diagnostics.e_bfmi(energy), torch.from_numpy(arviz.bfmi(energy.T.numpy())))


def test_rank_normalisation_is_invariant_under_monotone_maps():
    x = autoregressive(200, 4, 0.5)
    torch.testing.assert_close(diagnostics.ess_bulk(x), diagnostics.ess_bulk(x.exp()))


def test_chains_that_do_not_move_have_no_value():
    stuck = torch.randn(1, 4, 2, dtype=torch.float64).expand(100, 4, 2)
    constant = torch.ones(100, 4, 1, dtype=torch.float64)
    assert (diagnostics.r_hat(stuck) > 1.01).all()
    assert diagnostics.r_hat(constant).isnan().all()
    assert diagnostics.ess_bulk(constant).isnan().all()


def test_too_few_draws_have_no_value():
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    assert diagnostics.ess_bulk(x).isnan().all()
    assert diagnostics.r_hat(x).isnan().all()


def report(**changes) -> Diagnostics:
    good = dict(
        num_chains=4,
        num_draws=1000,
        r_hat=[1.001],
        ess_bulk=[2000.0],
        ess_tail=[1500.0],
        mean=[0.0],
        mcse_mean=[0.02],
        standard_deviation=[1.0],
        acceptance_rate=0.78,
        target_acceptance=0.8,
        num_divergences=0,
        e_bfmi=0.9,
        step_size=0.1,
        num_gradients=10000,
    )
    return Diagnostics(**{**good, **changes})


def test_verdict_is_silent_where_all_is_well():
    assert verdict(report()) == []
    for rate in (0.66, 0.94):
        assert verdict(report(acceptance_rate=rate)) == []
    assert verdict(report(r_hat=[1.01], ess_bulk=[400.0], ess_tail=[400.0], e_bfmi=0.3)) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"r_hat": [1.0, 1.02]}, "R-hat is 1.020"),
        ({"r_hat": [None]}, "did not move"),
        ({"ess_bulk": [399.0]}, "399"),
        ({"ess_tail": [12.0]}, "tails"),
        ({"num_divergences": 1}, "1 trajectory diverged"),
        ({"num_divergences": 3}, "3 trajectories diverged"),
        ({"acceptance_rate": 0.3}, "Only 30.0%"),
        ({"acceptance_rate": 0.64}, "Only 64.0%"),
        ({"acceptance_rate": 0.76, "target_acceptance": 0.6}, "shorter than"),
        ({"acceptance_rate": 0.999}, "shorter than"),
        ({"e_bfmi": 0.2}, "E-BFMI is 0.20"),
    ],
)
def test_verdict_names_the_fault_and_the_key(changes, word):
    (sentence,) = verdict(report(**changes))
    assert word in sentence
    assert "sampler." in sentence
