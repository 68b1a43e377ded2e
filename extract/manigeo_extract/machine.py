"""Properties of a machine that decide on the last bits of a sum. Over a training such bits grow to another network."""

import re
from typing import Any

import torch
from threadpoolctl import threadpool_info

_NAMES = {"open": "openblas"}  # torch's names of libraries, where others have another


def this_machine() -> dict[str, Any]:
    """Instruction set that torch uses, number of its threads, and its library of linear algebra with the version.

    ``ATEN_CPU_CAPABILITY`` and ``OMP_NUM_THREADS`` set the first two.

    >>> sorted(this_machine())
    ['blas', 'cpu_capability', 'threads']
    """
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "blas": blas_of(torch.__config__.show(), threadpool_info()),
    }


def blas_of(built: str, loaded: list[dict[str, Any]]) -> str:
    """Name and version, from what torch tells of its build; a library that is linked at run time tells its own version.

    >>> blas_of("- Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 1\\n- BLAS_INFO=mkl, USE_MKL=ON", [])
    'mkl 2024.2-Product'
    >>> blas_of("- BLAS_INFO=open, USE_MKL=OFF", [{"internal_api": "openblas", "version": "0.3.30"}])
    'openblas 0.3.30'
    >>> blas_of("- BLAS_INFO=accelerate", [])
    'accelerate'
    """
    named = re.search(r"BLAS_INFO=(\w+)", built)
    library = _NAMES.get(named[1], named[1]) if named else "unknown"
    static = re.search(r"Math Kernel Library Version (\S+)", built) if library == "mkl" else None
    version = static[1] if static else next((p["version"] for p in loaded if p.get("internal_api") == library), None)
    return f"{library} {version}" if version else library
