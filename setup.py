"""Builds `resumable._fastlog`; everything else stands in pyproject.toml.

Environment switches: RESUMABLE_TRACE=1 builds for line coverage, RESUMABLE_SANITIZE=address,undefined for sanitizers,
RESUMABLE_ANNOTATE=1 writes the `cython -a` page that the hot-path lint reads.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

tracing = os.environ.get("RESUMABLE_TRACE") == "1"
sanitizers = os.environ.get("RESUMABLE_SANITIZE", "")

compile_args = ["-O3", "-fno-strict-aliasing"]
link_args = []
if sanitizers:
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={sanitizers}"]
    link_args = [f"-fsanitize={sanitizers}"]

extension = Extension(
    "resumable._fastlog",
    ["src/_fastlog.pyx"],
    include_dirs=["src/_fastlog"],
    depends=[f"src/_fastlog/{name}" for name in sorted(os.listdir("src/_fastlog"))],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
    define_macros=[("CYTHON_TRACE", "1")] if tracing else [],
)

setup(
    ext_modules=cythonize(
        [extension],
        # Coverage needs the C file beside the source (Cython.Coverage looks for it there).
        build_dir=None if tracing else "build",
        annotate=os.environ.get("RESUMABLE_ANNOTATE") == "1",
        compiler_directives={"language_level": 3, "linetrace": tracing},
    )
)
