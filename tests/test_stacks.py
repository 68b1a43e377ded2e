"""Small matrices in stacks, beside one after the other."""

import numpy as np

from manigeo.capacity.geometry import cone_geometries, cone_geometry
from manigeo.capacity.stacks import in_stacks, stacks


def test_stacks_hold_every_item_once_and_only_equal_shapes_together():
    items = [np.zeros((size, 2)) for size in np.random.default_rng(0).integers(1, 4, size=100)]
    found = list(stacks(items))
    assert sorted(i for members in found for i in members) == list(range(100))
    assert all(len({items[i].shape for i in members}) == 1 for members in found)


def test_results_of_stacks_are_in_the_order_of_the_items():
    items = [np.full((1 + i % 3, 2), float(i)) for i in range(50)]
    sums, firsts = zip(
        *in_stacks(lambda x, y: (x.sum(axis=(1, 2)), y[:, 0]), items, [x[0] for x in items]), strict=True
    )
    assert list(sums) == [x.sum() for x in items]
    assert list(firsts) == list(range(50))


def test_cones_of_any_sizes_and_ranks_together_are_as_alone():
    rng = np.random.default_rng(1)
    points = [rng.standard_normal((size, rank)) for size, rank in ((6, 5), (4, 3), (6, 2), (6, 1), (1, 1))]
    cones = [(Y @ Y.T * (len(Y) > 1), np.ones(len(Y))) for Y in points]
    together = cone_geometries(cones, n_draws=50, rngs=[np.random.default_rng(mu) for mu in range(5)])
    assert [g.rank for g in together] == [5, 3, 2, 1, 0]
    for mu, (cone, geometry) in enumerate(zip(cones, together, strict=True)):
        alone = cone_geometry(*cone, n_draws=50, rng=np.random.default_rng(mu))
        numbers = ([v for v in vars(g).values() if not isinstance(v, str)] for g in (geometry, alone))
        # sums of other lengths of zeros, in float64
        np.testing.assert_allclose(*numbers, rtol=1e-12, atol=1e-15)
