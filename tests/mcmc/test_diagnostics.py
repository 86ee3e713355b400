import math

import pytest
import torch
from scipy.stats import norm, rankdata

from vaebench.energies.analytic.harmonic import HarmonicEnergy
from vaebench.mcmc import diagnostics
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.diagnostics import Diagnostics, diagnose, verdict
from vaebench.mcmc.kernels.hmc import HMCKernel

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
        r_hat_limit=[1.01],
        nested_r_hat=None,
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
        ({"r_hat": [1.0, 1.02], "r_hat_limit": [1.01, 1.01]}, "R-hat is 1.020"),
        ({"nested_r_hat": [1.0, 1.03]}, "nested R-hat is 1.030"),
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


def test_many_short_chains_in_equilibrium_are_rarely_told_to_disagree():
    """64 chains of 400 draws: the rate of false alarms; R-hat itself would give one in every run."""
    alarms, classic = 0, 0
    for seed in range(10):
        torch.manual_seed(seed)
        x = autoregressive(400, 64, 0.9)[..., :1]
        values, limits = diagnostics.r_hat_and_limit(x)
        alarms += bool((values > limits).any() or (diagnostics.nested_r_hat(x) > 1.01).any())
        classic += bool((values > 1.01).any())
    assert classic == 10
    assert alarms <= 1


@pytest.mark.parametrize(("num_dims", "num_runs"), [(10, 10), (100, 2)])
def test_many_dimensions_do_not_raise_false_alarms(num_dims, num_runs):
    """64 chains of 400 draws of N(0, I) in equilibrium: the worst of all dimensions is judged."""
    alarms = 0
    for seed in range(num_runs):
        torch.manual_seed(seed)
        noise, rho = torch.randn(400, 64, num_dims, dtype=torch.float64), 0.6
        x = noise.clone()
        for t in range(1, 400):
            x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * noise[t]
        values, limits = diagnostics.r_hat_and_limit(x)
        alarms += bool((values > limits).any() or (diagnostics.nested_r_hat(x) > 1.01).any())
    assert alarms == 0


@pytest.mark.parametrize(
    ("fault", "sees"),
    [
        (lambda x: x[:, 0].add_(4), "r_hat"),
        (lambda x: x[:, ::2].add_(1), "r_hat"),
        (lambda x: x.add_(torch.linspace(0, 1, 400, dtype=torch.float64)[:, None, None]), "r_hat"),
        (lambda x: x.add_(0.5 * torch.arange(8, dtype=torch.float64).repeat_interleave(8)[:, None]), "nested"),
    ],
    ids=["one chain apart", "two modes", "a trend", "groups apart"],
)
def test_many_short_chains_that_disagree_are_told_so(fault, sees):
    torch.manual_seed(0)
    x = autoregressive(400, 64, 0.5)[..., :1].clone()
    fault(x)
    values, limits = diagnostics.r_hat_and_limit(x)
    found = {"r_hat": bool((values > limits).all()), "nested": bool((diagnostics.nested_r_hat(x) > 1.01).all())}
    assert found[sees]


def test_few_chains_keep_the_limit_of_vehtari_et_al():
    _, limits = diagnostics.r_hat_and_limit(autoregressive(400, 8, 0.9))
    assert (limits == 1.01).all()


def test_nested_r_hat_is_that_of_the_paper_on_whole_groups():
    """By the definition, in NumPy's terms."""
    torch.manual_seed(0)
    x = autoregressive(40, 16, 0.3)[..., :1]
    expected = 0.0
    for values in (x, (x - x.median()).abs()):
        z = diagnostics.rank_normalise(values)[..., 0].numpy()
        groups = [z[:, 2 * k : 2 * k + 2] for k in range(8)]
        between = torch.tensor([group.mean() for group in groups]).var()
        within = torch.tensor([g.mean(0).var(ddof=1) + g.var(0, ddof=1).mean() for g in groups]).mean()
        expected = max(expected, float((1 + between / within).sqrt()))
    assert float(diagnostics.nested_r_hat(x)) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_draw_that_is_not_finite_has_no_value(value):
    x = torch.randn(200, 16, 2, dtype=torch.float64)
    x[5, 2, 0] = value
    for name in ("r_hat", "nested_r_hat", "ess_bulk", "ess_tail"):
        result = getattr(diagnostics, name)(x)
        assert result.isnan().tolist() == [True, False], name


def test_a_binary_quantity_has_a_tail(arviz):
    for share in (0.5, 0.02, 0.98):
        x = (torch.rand(500, 4, 1, dtype=torch.float64) < share).double()
        chain = x[..., 0].T.numpy()
        expected = float(arviz.ess(chain, method="tail", prob=(0.05, 0.95)))
        assert float(diagnostics.ess_tail(x)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("num_draws", [4, 5, 6, 7])
def test_few_draws_are_told_to_be_too_few(num_draws):
    words = verdict(report(num_draws=num_draws, ess_bulk=[None], ess_tail=[None]))
    assert any(f"{num_draws} draws per chain are too few" in sentence for sentence in words)


def test_draws_that_are_not_finite_are_told():
    words = verdict(report(mean=[math.nan], r_hat=[None], ess_bulk=[None]))
    assert any("not finite" in sentence for sentence in words)


def test_nothing_is_said_about_acceptance_where_nothing_can_be_rejected():
    assert verdict(report(acceptance_rate=None, target_acceptance=None)) == []
    assert verdict(report(caveat="It is biased.")) == ["It is biased."]
    slow = verdict(report(ess_bulk=[10.0], if_slow="wait"))
    assert any(sentence.endswith("wait.") for sentence in slow)


def test_ranks_are_those_of_scipy_with_ties():
    torch.manual_seed(0)
    x = (4 * torch.rand(7, 3, 5)).round().double()
    x[..., 4] = 1.0  # all tied
    expected = norm.ppf((rankdata(x.flatten(0, 1).numpy(), axis=0) - 0.375) / 21.25)
    found = diagnostics.rank_normalise(x)
    assert torch.allclose(found.flatten(0, 1), torch.from_numpy(expected), atol=1e-12)
    assert diagnostics.rank_normalise(x[:1, :1]).abs().max() < 1e-12


def test_many_dimensions_are_looked_at_in_parts(monkeypatch):
    torch.manual_seed(0)
    chains = run_chains(HMCKernel(), HarmonicEnergy(5), torch.randn(16, 5), num_draws=8, num_warmup=0, step_size=0.5)
    whole = diagnose(chains).as_dict()
    sizes, of_dimensions = [], diagnostics._of_dimensions
    monkeypatch.setattr(diagnostics, "MOST_AT_ONCE", 2 * 8 * 16)
    monkeypatch.setattr(diagnostics, "_of_dimensions", lambda x: (sizes.append(x.shape[-1]), of_dimensions(x))[1])
    found = diagnose(chains).as_dict()
    for name in ("r_hat", "nested_r_hat", "ess_bulk", "ess_tail", "mean", "mcse_mean", "standard_deviation"):
        assert found[name] == pytest.approx(whole[name], rel=1e-9), name
    assert sizes == [2, 2, 1]
