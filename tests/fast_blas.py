"""A fast BLAS for MLX on Linux, whose wheel carries the reference one: 40 times slower on a prompt.

``load()`` before MLX multiplies for the first time. It compiles one function that hands the call
on to the OpenBLAS in SciPy's wheel; where there is no compiler or no such file, MLX stays slow.
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

SHIM = """
void scipy_cblas_sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int,
                       float, float *, int);
void scipy_openblas_set_num_threads(int);
/* Spinning threads cost more than they bring on a machine that does other things too. */
__attribute__((constructor)) static void one_thread(void) { scipy_openblas_set_num_threads(1); }
void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                 int lda, const float *b, int ldb, float beta, float *c, int ldc) {
    scipy_cblas_sgemm(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
"""


@functools.cache
def load() -> None:
    """Put OpenBLAS in front of the BLAS that MLX brings, in this process."""
    compiler, library = shutil.which("cc"), _openblas()
    if sys.platform != "linux" or compiler is None or library is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "shim.c"), Path(folder, "libshim.so")
        source.write_text(SHIM)
        files = (str(source), "-o", str(made), str(library), f"-Wl,-rpath,{library.parent}")
        done = subprocess.run((compiler, "-O2", "-shared", "-fPIC", *files), capture_output=True)
        if done.returncode == 0:
            # What is loaded for all comes before a library's own dependencies.
            ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL)


def _openblas() -> Path | None:
    found = importlib.util.find_spec("scipy")
    if found is None or found.origin is None:
        return None
    wheels = Path(found.origin).parent.parent / "scipy.libs"
    return next(iter(sorted(wheels.glob("libscipy_openblas-*.so"))), None)
