"""The Gram loss against its formula, and each of its options."""

import pytest
import torch

from vaebench.objectives import GramLoss


def _by_hand(student, teacher, negatives="clamp"):
    """Pair by pair, in float64, for tokens (N, D) of one picture."""
    total, n = 0.0, len(student)
    for i in range(n):
        for j in range(n):
            a = torch.cosine_similarity(student[i], student[j], dim=0).item()
            b = torch.cosine_similarity(teacher[i], teacher[j], dim=0).item()
            if negatives == "clamp":
                a, b = max(a, 0), max(b, 0)
            elif negatives == "teacher" and b < 0:
                a, b = max(a, 0), 0
            total += (a - b) ** 2
    return total / n**2


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)


@pytest.mark.parametrize("negatives", ["clamp", "teacher", "keep"])
def test_equals_the_formula(pair, negatives):
    expected = sum(_by_hand(s, t, negatives) for s, t in zip(*pair, strict=True)) / 2
    assert GramLoss(negatives=negatives)(*pair).item() == pytest.approx(expected)


def test_teacher_masks_the_student_where_both_are_negative():
    # Two opposite positions in both: their cosine of -1 and -0.5 counts as no difference, as long as the student's
    # mask is found before the teacher's cosines are set to zero.
    student = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    teacher = torch.tensor([[[1.0, 0.0], [-0.5, 0.75**0.5]]])
    assert GramLoss(negatives="teacher")(student, teacher).item() == pytest.approx(0, abs=1e-12)
    assert GramLoss(negatives="keep")(student, teacher).item() == pytest.approx(2 * 0.25 / 4)
    # Where only the student's is negative, it stays.
    teacher = torch.tensor([[[1.0, 0.0], [0.5, 0.75**0.5]]])
    assert GramLoss(negatives="teacher")(student, teacher).item() == pytest.approx(2 * 1.5**2 / 4)
    assert GramLoss(negatives="clamp")(student, teacher).item() == pytest.approx(2 * 0.25 / 4)


def test_takes_feature_maps_as_tokens_of_their_positions(pair):
    student, teacher = pair
    maps = [t.mT.unflatten(2, (5, 1)) for t in (student, teacher)]
    torch.testing.assert_close(GramLoss()(*maps), GramLoss()(student, teacher))


def test_over_the_batch_compares_positions_of_all_pictures(pair):
    together = [t.reshape(1, 10, 3) for t in pair]
    torch.testing.assert_close(GramLoss()(*pair, img_level=False), GramLoss()(*together))
    torch.testing.assert_close(GramLoss(img_level=False)(*pair), GramLoss()(*together))
    torch.testing.assert_close(GramLoss(img_level=False)(*pair, img_level=True), GramLoss()(*pair))
    assert GramLoss(img_level=False)(*pair) != GramLoss()(*pair)


def test_teacher_gets_no_gradient_and_the_student_does(pair):
    student, teacher = (t.requires_grad_() for t in pair)
    GramLoss(negatives="keep")(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(lambda s: GramLoss(negatives="keep")(s, teacher), student)


def test_is_zero_for_scaled_and_rotated_features(pair):
    student, _ = pair
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert GramLoss()(student, 3 * student @ rotation).item() == pytest.approx(0, abs=1e-20)


def test_computes_in_float32_from_half_precision(pair):
    student, teacher = (t.bfloat16() for t in pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GramLoss()(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, GramLoss()(student.float(), teacher.float()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda: GramLoss(negatives="clmp"), "negatives: unknown name 'clmp'; did you mean 'clamp'?"),
        (lambda: GramLoss()(torch.zeros(2, 3), torch.zeros(2, 3)), r"expected features \(B, D, H, W\) or tokens"),
        (
            lambda: GramLoss()(torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)),
            r"same pictures and positions, got \(2, 3, 4\) and \(2, 5, 4\)",
        ),
    ],
)
def test_refuses(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        mistake()
