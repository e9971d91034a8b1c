"""A fast BLAS for MLX on a Linux CPU, whose wheel carries the reference one.

That one multiplies four rows in four times the time of one, about a fortieth of what the processor
can: batches would show nothing but that. One function, compiled here, hands the call on to the
OpenBLAS in NumPy's wheel.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OWN = "MLX's own"
NUMPYS = "NumPy's OpenBLAS, 1 thread"
_SHIM = """
#include <stdint.h>
void scipy_cblas_sgemm64_(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t,
                          const float *, int64_t, float, float *, int64_t);
void scipy_openblas_set_num_threads64_(int);
/* Threads that spin would cost the rest of the machine more than they bring. */
__attribute__((constructor)) static void one_thread(void) { scipy_openblas_set_num_threads64_(1); }
void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                 int lda, const float *b, int ldb, float beta, float *c, int ldc) {
    scipy_cblas_sgemm64_(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
"""


@functools.cache
def load() -> str:
    """Put it in front of MLX's, before MLX is imported; returns which one is used.

    Where there is no C compiler, or NumPy came in another way, MLX keeps its own.
    """
    compiler, library = shutil.which("cc"), _openblas()
    # MLX binds to a BLAS when it is imported.
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return OWN
    if compiler is None or library is None:
        return OWN
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "shim.c"), Path(folder, "libshim.so")
        source.write_text(_SHIM)
        files = [str(source), "-o", str(made), str(library), f"-Wl,-rpath,{library.parent}"]
        done = subprocess.run([compiler, "-O2", "-shared", "-fPIC", *files], capture_output=True)
        if done.returncode != 0:
            return OWN
        # What is loaded for all comes before a library's own dependencies.
        ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL)
    return NUMPYS


def _openblas() -> Path | None:
    found = importlib.util.find_spec("numpy")
    if found is None or found.origin is None:
        return None
    libraries = Path(found.origin).parent.parent / "numpy.libs"
    return next(iter(sorted(libraries.glob("libscipy_openblas64_-*.so"))), None)
