"""Videos, and arrays of contexts, in a user's own file; and what is shown of videos."""

import numpy as np
import pytest
import torch

from vaebench.data.arrays import Arrays
from vaebench.runs.images import film_strips, side_by_side, to_image


def _file(tmp_path, **arrays):
    path = tmp_path / "videos.npz"
    np.savez(path, **arrays)
    return str(path)


def _bytes(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("layout", ["chw", "hwc"])
def test_videos_are_found_in_either_layout(tmp_path, layout):
    videos = _bytes(20, 4, 6, 5, 3)
    stored = videos if layout == "hwc" else np.moveaxis(videos, -1, 2)
    data = Arrays(_file(tmp_path, x=stored))
    assert data.shape == (4, 3, 6, 5)
    assert data.likelihood_name == "discretized_logistic"
    x = torch.cat([split.x for split in (data.train, data.validation, data.test)])
    expected = np.moveaxis(videos, -1, 2)
    assert {tuple(v.flatten().tolist()) for v in (x * 255).round().int()} == {
        tuple(v.flatten().tolist()) for v in expected
    }


@pytest.mark.parametrize(
    ("contexts", "shape"),
    [
        (np.arange(40.0).reshape(20, 2), (2,)),
        (np.arange(160.0).reshape(20, 4, 2), (4, 2)),
        (np.arange(20), (1,)),
        (_bytes(20, 1, 6, 5), (1, 6, 5)),
    ],
)
def test_contexts_stand_in_the_place_of_labels(tmp_path, contexts, shape):
    videos = np.zeros((20, 4, 1, 6, 5), np.uint8)
    videos[:, 0, 0, 0, 0] = np.arange(20)  # which example it is
    data = Arrays(_file(tmp_path, x=videos, c=contexts, y=np.arange(20) % 2), context_key="c", scale=1.0)
    batch = data.train.batch(torch.arange(len(data.train)))
    assert batch.y.shape == batch.context.shape == (len(data.train), *shape)
    assert data.num_classes is None
    rows = batch.x[:, 0, 0, 0, 0].round().long().numpy()
    expected = contexts[rows].reshape(len(rows), *shape).astype(np.float32) / (255 if len(shape) == 3 else 1)
    np.testing.assert_allclose(batch.context.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(batch.y, batch.context)


@pytest.mark.parametrize(
    ("arrays", "settings", "sentence"),
    [
        ({"x": _bytes(20, 4, 1, 6, 5), "c": np.zeros((19, 2))}, {"context_key": "c"}, r"contexts of shape \(20, E\)"),
        ({"x": _bytes(20, 4, 1, 6, 5), "c": np.zeros((20, 2))}, {"context_key": "ctx"}, "dataset.context_key to name"),
        ({"x": _bytes(20, 4, 1, 6, 5), "c": np.full((20, 2), np.nan)}, {"context_key": "c"}, "finite contexts in 'c'"),
        ({"x": _bytes(20, 4, 6, 6, 5)}, {}, "the third or the last dimension .* to be the channels"),
        (
            {"x": np.array([np.zeros((n, 1, 4, 4)) for n in (2, 3, 4)], dtype=object)},
            {},
            "not read: they can run code; bring examples of unequal length, such as videos, to one length",
        ),
        (
            {"x_train": _bytes(20, 4, 1, 6, 5), "x_test": _bytes(20, 3, 1, 6, 5)},
            {},
            "expected one shape of examples",
        ),
        ({"x": _bytes(20, 2, 2, 1, 6, 5)}, {}, r"\(N, H, W, C\) or \(N, T, C, H, W\)"),
    ],
)
def test_refuses(tmp_path, arrays, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Arrays(_file(tmp_path, **arrays), **settings)


def test_videos_are_shown_as_strips_of_frames():
    videos = torch.rand(2, 3, 1, 4, 5)
    strips = film_strips(videos)
    assert strips.shape == (2, 1, 4, 3 * 6 - 1)
    for t in range(3):
        torch.testing.assert_close(strips[:, :, :, 6 * t : 6 * t + 5], videos[:, t])
    assert (strips[:, :, :, 5] == 1).all()
    image = np.asarray(to_image(videos, columns=1, gap=0))
    factor = 12  # four rows of a frame of 5 by 4 pixels, enlarged until its longer side has 56
    assert image.shape == (2 * 4 * factor, 17 * factor, 3)
    assert abs(int(image[0, 0, 0]) - round(videos[0, 0, 0, 0, 0].item() * 255)) <= 1
    assert side_by_side(videos, videos, 1).shape == (4, 3, 1, 4, 5)
