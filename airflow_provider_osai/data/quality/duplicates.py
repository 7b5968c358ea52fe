"""Find near-duplicates among many perceptual hashes with NumPy, without comparing each pair in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["near_duplicate_groups", "nearest"]

MAX_COMPARISONS: Final = 2_000_000
"""Pairs that are compared at once; limits memory to about 100 MB."""


def near_duplicate_groups(hashes: Sequence[bytes], max_distance: int) -> list[list[int]]:
    """Return the groups of indices that are linked by a chain of hashes with at most *max_distance* different bits.

    Complete: if two hashes differ in at most d bits and are cut into d + 1 bands, at least one band is equal. So only
    hashes with an equal band are compared (multi-index hashing), and of those only pairs that are not linked yet.

    :param hashes: perceptual hashes of equal length.
    :return: groups of at least two indices, each sorted, in the order of their first index.
    """
    import numpy as np

    if len(hashes) < 2:
        return []
    words, inverse = np.unique(_words(hashes), axis=0, return_inverse=True)
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    linked = _Components(len(words))
    for band in np.array_split(bits, max_distance + 1, axis=1):
        keys = np.ascontiguousarray(np.packbits(band, axis=1))
        order = np.lexsort(keys.T)
        in_order = keys[order]
        position, offset = np.arange(len(words)), 1
        while linked.number > 1 and len(position := position[position + offset < len(words)]):
            position = position[(in_order[position] == in_order[position + offset]).all(axis=1)]
            left, right = order[position], order[position + offset]
            unlinked = linked.labels[left] != linked.labels[right]
            left, right = left[unlinked], right[unlinked]
            is_near = _distances(words[left], words[right]) <= max_distance
            linked.link(left[is_near], right[is_near])
            offset += 1
    return _groups(linked.labels[inverse.ravel()])


def nearest(hashes: Sequence[bytes], others: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return for each of *hashes* the index of the nearest of *others* and the number of different bits.

    :param others: at least one hash.
    """
    import numpy as np

    left, right = _words(hashes), _words(others)
    found: list[tuple[int, int]] = []
    rows = max(1, MAX_COMPARISONS // len(right))
    for start in range(0, len(left), rows):
        distances = _distances(left[start : start + rows, None, :], right[None, :, :])
        best = distances.argmin(axis=1)
        found += zip(best.tolist(), distances[np.arange(len(best)), best].tolist(), strict=True)
    return found


class _Components:
    """The connected components of a graph to which edges are added in batches."""

    def __init__(self, nodes: int) -> None:
        import numpy as np

        self.labels: NDArray[np.int64] = np.arange(nodes)
        self.number = nodes

    def link(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Add edges between nodes."""
        if not len(left):
            return
        import numpy as np
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        edges = np.ones(len(left), dtype=np.int8), (self.labels[left], self.labels[right])
        adjacency = coo_array(edges, shape=(self.number, self.number))
        self.number, labels = connected_components(adjacency, directed=False)
        self.labels = labels[self.labels].astype(np.int64)


def _words(hashes: Sequence[bytes]) -> NDArray[np.uint64]:
    import numpy as np

    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), -1)


def _distances(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Any:
    import numpy as np

    return np.bitwise_count(left ^ right).sum(axis=-1, dtype=np.int64)


def _groups(labels: NDArray[np.int64]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(index)
    return [group for group in groups.values() if len(group) > 1]
