"""Flows with a context: invertible, with the log-determinants of their Jacobians."""

import pytest
import torch

from vaebench.networks.coupling import PictureFlow, VectorFlow, conditional_flow


def perturbed(flow):
    """Away from the identity, in float64."""
    torch.manual_seed(0)
    flow = flow.double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return flow


FLOWS = {
    "pictures": (lambda: PictureFlow((2, 3, 2), 3, 4, (8,)), (2, 3, 2), (3, 3, 2)),
    "one_pixel": (lambda: PictureFlow((1, 1, 1), 1, 2, (4,)), (1, 1, 1), (1, 1, 1)),
    "vectors": (lambda: VectorFlow((4,), 2, 3, (8,)), (4,), (2,)),
    "one_number": (lambda: VectorFlow((1,), 2, 2, (8,)), (1,), (2,)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_inverted_exactly(name):
    build, shape, context_shape = FLOWS[name]
    flow, x, context = perturbed(build()), torch.randn(5, *shape).double(), torch.randn(5, *context_shape).double()
    noise, _ = flow(x, context)
    assert not torch.allclose(noise, x)
    torch.testing.assert_close(flow.inverse(noise, context), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_log_determinants_are_those_of_the_jacobian(name):
    build, shape, context_shape = FLOWS[name]
    flow, x, context = perturbed(build()), torch.randn(1, *shape).double(), torch.randn(1, *context_shape).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v.view(1, *shape), context)[0].flatten(), x.flatten())
    torch.testing.assert_close(flow(x, context)[1][0], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_the_context_moves_what_comes_out(name):
    build, shape, context_shape = FLOWS[name]
    flow, x = perturbed(build()), torch.randn(1, *shape).double()
    ends = [flow(x, torch.full((1, *context_shape), c, dtype=torch.float64))[0] for c in (0.0, 1.0)]
    assert not torch.allclose(*ends)


def test_couplings_begin_as_the_identity_and_change_every_pixel_later():
    x, context = torch.randn(3, 1, 4, 5), torch.randn(3, 2, 4, 5)
    flow = PictureFlow((1, 4, 5), 2, 2, (8,))
    noise, log_det = flow(x, context)
    assert torch.equal(noise, x)
    assert not log_det.any()
    noise, _ = perturbed(flow)(x.double(), context.double())
    assert (noise != x).all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(C, H, W\), got examples of shape \(2, 1, 8, 8\)"):
        conditional_flow((2, 1, 8, 8), 3, 2, (8,))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_scales_stay_within_two(sign):
    flow = PictureFlow((1, 2, 2), 1, 1, (4,))
    torch.nn.init.constant_(flow.couplings[0].exit.bias, sign * 100)
    s, _ = flow.couplings[0].scale_and_shift(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert torch.equal(s[0, 0], sign * torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
