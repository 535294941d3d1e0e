"""Inner products of a run stand for its tensors: they give the weights and errors of every jump."""

import numpy as np
import pytest

from generators.samplers import FlowMatchEuler
from optimize.steps.fit import error
from optimize.steps.trajectory import Gram, inner_products, least_squares

SHAPE = (1, 4, 6, 12, 8)


def run_of(steps, seed, shape=SHAPE, guidance=1.5):
    """Latents, conditional and delta of an Euler run in float32, whose predictions change little a step."""
    grid, rng = FlowMatchEuler(steps, shift=3.0), np.random.default_rng(seed)
    x, clean, *bends = rng.standard_normal((6, *shape)).astype(np.float32)
    latents, conditional, delta = [x], [], []
    for step in range(steps):
        t = grid.times[step]
        c = x - clean + 0.1 * np.sin(3 * t) * bends[0] + 0.02 * np.cos(9 * t) * bends[1]
        d = (0.2 + t) * bends[2] + 0.01 * np.sin(5 * t) * bends[3]
        x = grid.leap(x, c + (guidance - 1) * d, step, step + 1)
        latents.append(x)
        conditional.append(c)
        delta.append(d)
    return latents, conditional, delta


def direct(target, basis):
    """Weights and mean square error by least squares on the tensors themselves, in float64."""
    columns = np.stack([np.ravel(each) for each in basis], 1).astype(np.float64)
    wanted = np.ravel(target).astype(np.float64)
    weights = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    return weights, np.mean((wanted - columns @ weights) ** 2)


def fitted(tensors):
    """Least-squares weights of the first tensors for the last one, and the mean square error."""
    products = inner_products(tensors)
    weights = least_squares(products[:-1, :-1], products[:-1, -1])
    return weights, error(products, weights)


def test_inner_products_are_means_over_elements_whatever_the_length_of_chunks():
    tensors = np.random.default_rng(0).standard_normal((3, 7, 50, 101)).astype(np.float32)
    wanted = np.einsum("aijk,bijk->ab", *[tensors.astype(np.float64)] * 2) / (7 * 50 * 101)
    np.testing.assert_allclose(inner_products(tensors), wanted, rtol=1e-12)


def test_inner_products_of_float32_are_summed_in_float64():
    half = 1 + np.float32(2**-12)  # its square needs more bits than float32 has
    assert inner_products([np.full(50_000, half)])[0, 0] == pytest.approx(float(half) ** 2, rel=1e-13)


def test_nearly_equal_predictions_still_give_the_least_error():
    rng = np.random.default_rng(1)
    x, c, d, bend, off = rng.standard_normal((5, 40_000)).astype(np.float32)
    near = c + np.float32(1e-3) * bend  # a millionth of its power differs
    target = x - 0.3 * c + 2 * (near - c) + 0.01 * off
    basis = (x, c, d, near)
    assert fitted([*basis, target])[1] == pytest.approx(direct(target, basis)[1], rel=1e-6)


def test_weights_do_not_hang_on_the_units_of_a_tensor():
    tensors = list(np.random.default_rng(2).standard_normal((4, 5000)))
    weights, left = fitted(tensors)
    tensors[1] *= 1e-3  # as predictions beside latents of a thousand sigmas
    scaled, same = fitted(tensors)
    np.testing.assert_allclose(scaled, weights * [1, 1e3, 1], rtol=1e-7)
    assert same == pytest.approx(left, rel=1e-9)


def test_tensors_that_repeat_each_other_or_are_zero_can_be_a_basis():
    x = np.random.default_rng(6).standard_normal(500)
    weights, left = fitted([x, x, 0 * x, 2 * x])
    assert weights[:2].sum() == pytest.approx(2) and weights[2] == 0 and left == pytest.approx(0, abs=1e-9)


def test_a_gram_comes_back_from_its_file(tmp_path):
    gram = Gram.of(*run_of(3, 11), {(1, 0): run_of(3, 12)[1][:2]})
    gram.save(tmp_path / "gram")  # the name is kept as it is given
    back = Gram.load(tmp_path / "gram")
    np.testing.assert_array_equal(back.products, gram.products)
    assert back.shallow == ((1, 0),) and back.steps == 3


def test_a_file_that_is_another_or_damaged_is_refused(tmp_path):
    path = tmp_path / "gram.npz"
    Gram.of(*run_of(3, 13)).save(path)
    whole = path.read_bytes()
    for wrong in (b"", b"text", whole[:-40], whole[:300] + b"\0\0\0\0" + whole[304:]):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"gram\.npz: holds no inner products .* capture them again"):
            Gram.load(path)
    for content in ({"product": np.eye(4)}, {"products": np.eye(5), "shallow": []},
                    {"products": np.array([None] * 4), "shallow": []},
                    {"products": np.eye(4), "shallow": [[1, 0]]}):
        np.savez(path, **content)
        with pytest.raises(ValueError, match="holds no inner products"):
            Gram.load(path)
    with path.open("wb") as file:
        np.save(file, np.eye(4))
    with pytest.raises(ValueError, match="holds no inner products"):
        Gram.load(path)
    with pytest.raises(FileNotFoundError):
        Gram.load(tmp_path / "none.npz")


def test_a_save_that_is_cut_off_leaves_what_was_there(tmp_path, monkeypatch):
    path, gram = tmp_path / "gram.npz", Gram.of(*run_of(3, 13))
    gram.save(path)

    def stop(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        gram.save(path)
    monkeypatch.undo()
    np.testing.assert_array_equal(Gram.load(path).products, gram.products)


def test_wrong_counts_shapes_and_numbers_are_named():
    x, c, d = run_of(3, 14)
    with pytest.raises(ValueError, match=r"N \+ 1 latents.*got \(3, 3, 3\)"):
        Gram.of(x[:-1], c, d)
    with pytest.raises(ValueError, match="one shape"):
        Gram.of(x, c, [*d[:-1], d[-1][..., 1:]])
    with pytest.raises(ValueError, match="one shape and not empty"):
        inner_products([np.zeros((0, 3))])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="a tensor has .* not finite.* see what the run did"):
            Gram.of([*x[:-1], np.full_like(x[-1], bad)], c, d)
