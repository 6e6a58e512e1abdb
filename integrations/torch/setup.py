"""Builds railccl_torch for the PyTorch of this Python: pip install --no-build-isolation .

railccl is taken from RAILCCL_INCLUDE (the folder of nccl.h) and RAILCCL_LIB (that of librailccl.so),
else from pkg-config, else from the repository around this folder, built in build/."""
import os
import pathlib
import subprocess

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

HERE = pathlib.Path(__file__).resolve().parent


def railccl():
    include, library = os.environ.get("RAILCCL_INCLUDE"), os.environ.get("RAILCCL_LIB")
    if include and library:
        return include, library
    try:
        return tuple(subprocess.run(["pkg-config", f"--variable={name}", "railccl"], check=True,
                                    capture_output=True, text=True).stdout.strip()
                     for name in ("includedir", "libdir"))
    except (OSError, subprocess.CalledProcessError):
        pass
    root = HERE.parents[1]
    if (root / "build/lib/librailccl.so").exists():
        return str(root / "include"), str(root / "build/lib")
    raise SystemExit("railccl is not found: install it where pkg-config finds it, or set "
                     "RAILCCL_INCLUDE and RAILCCL_LIB")


include, library = railccl()
# Newer versions of PyTorch want C++20, older ones can do with it.
setup(
    ext_modules=[CppExtension(
        "railccl_torch._C", ["src/all.cc"],
        include_dirs=[include], library_dirs=[library], runtime_library_dirs=[library],
        libraries=["railccl"], define_macros=[("RAILCCL_NO_CUDA", None)],
        extra_compile_args=["-std=c++20", "-O1", "-g0", "-fvisibility=hidden"])],
    # The only file: nothing for ninja to run side by side.
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=False)},
)
