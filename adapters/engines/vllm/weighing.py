"""Numbers of one kind times a weight, as another kind."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from adapters.engines.vllm.tensors import Kind, as_f32, numpy_type, put_f32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Weighing:
    """Turns arrays of ``given`` into arrays of ``wanted``, each number times ``factor``.

    The product is computed in f32 and rounded once: at most half a unit in the last place of
    ``wanted``, and nothing for a power of two. A kind of 16 bits has 65,536 numbers, so what
    becomes of each is looked up, which is faster than to convert it.
    """

    def __init__(self, given: Kind, wanted: Kind, factor: float) -> None:
        import numpy as np

        self._changes_nothing = factor == 1.0 and given == wanted
        self._wanted = wanted
        self._factor = np.float32(factor)
        self._table = None if given == "F32" else self._weighed(_all_numbers(given))

    def weigh(self, values: NDArray[Any]) -> NDArray[Any]:
        """What becomes of ``values``; themselves where nothing changes."""
        import numpy as np

        if self._changes_nothing:
            return values
        if self._table is None:
            return self._weighed(values)
        return np.take(self._table, values.view("<u2"), mode="clip")

    def _weighed(self, values: NDArray[np.float32]) -> NDArray[Any]:
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            product = values * self._factor
            if self._wanted == "F32":
                return product
            out = np.empty(values.shape, numpy_type(self._wanted))
            put_f32(self._wanted, out, product)
        return out


@lru_cache(maxsize=2)
def _all_numbers(kind: Kind) -> NDArray[np.float32]:
    import numpy as np

    return as_f32(kind, np.arange(1 << 16, dtype="<u2").view(numpy_type(kind)))
