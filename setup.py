"""Packages and native libraries of autoreid_fast.

A native library is two files. `libautoreid_fast_<device>.so` holds the ops on PyTorch's stable ABI: one build
serves torch 2.11 to 2.13 and every Python. `_<device>.<python tag>.so` beside it is its pybind11 face, which
says what was built; on another Python the ops load without it.

- CPU: always, unless AUTOREID_FAST_BACKEND=reference or there is no C++ compiler (a line says so, and the
  package is pure Python).
- CUDA: where torch has CUDA and nvcc is found, or with AUTOREID_FAST_CUDA=1 (an error without nvcc). It needs
  nothing of torch's CUDA: the one symbol it takes from there, the current stream, is looked up in
  libtorch_cuda.so when it is loaded, so a CPU build of torch compiles and links it as well.

AUTOREID_FAST_SANITIZE=address or =thread builds the CPU library for GCC's sanitizers (`make sanitize`,
`make tsan`), in a build folder of its own.

torch's own BuildExtension is not used: it wants ATen, CUDA_HOME and torch's exact CUDA version.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"
TORCH_TARGET_VERSION = "0x020b000000000000ULL"  # 2.11: the oldest torch that can load what is built
CUDA_ARCHS = ("80", "90", "100")
SANITIZERS = {
    "": "-O3",
    "address": "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all",
    "thread": "-O1 -g -fsanitize=thread",
}


def sanitizer() -> str:
    """ "address" (with undefined behaviour), "thread", or "": no sanitizer."""
    asked = os.environ.get("AUTOREID_FAST_SANITIZE", "")
    if asked not in SANITIZERS:
        sys.exit(f"autoreid_fast: AUTOREID_FAST_SANITIZE={asked}: it is address or thread")
    return asked


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))


def devices() -> list[str]:
    """The libraries to build, with a line for each that is left out."""
    if os.environ.get("AUTOREID_FAST_BACKEND") == "reference":
        print("autoreid_fast: AUTOREID_FAST_BACKEND=reference: pure Python, no native library")
        return []
    if compiler() is None:
        print("autoreid_fast: no C++ compiler (g++ or $CXX): pure Python, no native library")
        return []
    import torch

    if sanitizer():
        return ["cpu"]
    asked = os.environ.get("AUTOREID_FAST_CUDA") == "1"
    if asked and nvcc() is None:
        sys.exit("autoreid_fast: AUTOREID_FAST_CUDA=1, but nvcc is neither on PATH nor in $CUDA_HOME/bin")
    if torch.version.cuda is not None and nvcc() is None:
        print("autoreid_fast: torch has CUDA, but there is no nvcc: no CUDA library")
    return ["cpu", "cuda"] if nvcc() and (asked or torch.version.cuda is not None) else ["cpu"]


class NinjaBuild(build_ext):
    """Builds every library in build/native by one ninja file, then copies them to the package."""

    def run(self) -> None:
        if not self.extensions:
            return
        name = f"native-{sanitizer()}" if sanitizer() else "native"
        folder = ROOT / "build" / name  # not build_temp, which pip throws away
        folder.mkdir(parents=True, exist_ok=True)
        targets = [file for extension in self.extensions for file in self.files(extension)]
        write_ninja(folder / "build.ninja", [device_of(extension) for extension in self.extensions])
        subprocess.run([sys.executable, "-m", "ninja", "-C", folder, *targets], check=True)
        package = ROOT / "autoreid_fast" if self.inplace else Path(self.build_lib) / "autoreid_fast"
        package.mkdir(parents=True, exist_ok=True)
        for name in targets:  # by rename: a running process keeps the file that it has mapped
            shutil.copy2(folder / name, package / f"{name}.new")
            (package / f"{name}.new").replace(package / name)

    def files(self, extension: Extension) -> list[str]:
        face = Path(self.get_ext_filename(extension.name)).name
        return [f"libautoreid_fast_{device_of(extension)}.so", face]

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / "autoreid_fast"
        return [str(folder / file) for extension in self.extensions for file in self.files(extension)]


def device_of(extension: Extension) -> str:
    return extension.name.rpartition("._")[2]


def write_ninja(path: Path, names: list[str]) -> None:
    """The build of all native files, by rule and dependency; ninja does only what changed."""
    import pybind11
    import torch
    from ninja.ninja_syntax import Writer

    torch_root = Path(torch.__file__).parent
    cxx = compiler()
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=True).stdout
    defines = f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION} '-DCOMPILER_NAME=\"{version.splitlines()[0]}\"'"
    folders = (torch_root / "include", pybind11.get_include(), sysconfig.get_path("include"))
    includes = " ".join(f"-isystem {folder}" for folder in folders)
    archs = " ".join(f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHS)
    newest = f"-gencode arch=compute_{CUDA_ARCHS[-1]},code=compute_{CUDA_ARCHS[-1]}"

    with path.open("w") as file:
        ninja = Writer(file, width=200)
        ninja.variable(
            "flags",
            f"-std=c++20 {SANITIZERS[sanitizer()]} -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi "
            f"{defines} {includes}",
        )
        ninja.rule("cxx", f"{cxx} $flags $define -MD -MF $out.d -c $in -o $out", depfile="$out.d", deps="gcc")
        ninja.rule(
            "nvcc",  # ptxas's word on registers and spills stays beside the object; a test reads it
            f"{nvcc()} -std=c++20 -O3 {archs} {newest} -Xcompiler -fPIC,-fvisibility=hidden -Xptxas -v "
            "-MD -MF $out.d -c $in -o $out > $out.log 2>&1 || (cat $out.log && false)",
            depfile="$out.d",
            deps="gcc",
        )
        checked = " ".join(re.findall(r"-fsanitize=\S+", SANITIZERS[sanitizer()]))
        ninja.rule("link", f"{cxx} -shared {checked} -Wl,-z,defs $in -o $out $link")
        # A face leaves Python's own symbols to the interpreter; the libraries leave nothing undefined.
        ninja.rule("link_face", f"{cxx} -shared {checked} $in -o $out $link")
        ninja.rule("link_cuda", f"{nvcc()} -shared -cudart static -Xlinker -z,defs $in -o $out $link")
        stub = "-shared -fPIC -Wl,-soname,libtorch_cuda.so -x c++ - -o $out"
        ninja.rule("stub", f"echo 'extern \"C\" void $symbol() {{}}' | {cxx} {stub}")
        libraries = f"-L{torch_root / 'lib'} -ltorch_cpu -lc10"
        for device in names:
            write_library(ninja, device, libraries)


def write_library(ninja: Any, device: str, libraries: str) -> None:
    """One device's library and its face; objects, library and face as build edges of `ninja`."""
    from ninja.ninja_syntax import escape_path

    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    cuda = device == "cuda"
    define = f"-DUSE_CUDA -DCUDA_ARCHS='\"{' '.join('sm_' + arch for arch in CUDA_ARCHS)}\"'" if cuda else ""
    kernels = sorted(SOURCES.glob("*/*.cu" if cuda else "*/*_cpu.cpp"))
    folders = {kernel.parent for kernel in kernels}
    checks = [file for file in sorted(SOURCES.glob("*/*_torch.cpp")) if file.parent in folders]
    objects = []
    sources = [*checks, *kernels, SOURCES / f"library_{device}.cpp"]
    if sanitizer() == "thread":
        sources.append(SOURCES / "thread_sanitizer.cpp")
    for source in sources:
        objects.append(f"{device}/{source.stem}{source.suffix}.o")
        rule = "nvcc" if source.suffix == ".cu" else "cxx"
        ninja.build(objects[-1], rule, escape_path(str(source)), variables={"define": define})
    library = f"libautoreid_fast_{device}.so"
    if cuda:
        # Stands for libtorch_cuda.so at link time, which a CPU build of torch does not have.
        symbol = "aoti_torch_get_current_cuda_stream"
        ninja.build("stub/libtorch_cuda.so", "stub", variables={"symbol": symbol})
        link = f"{libraries} -Xlinker --no-as-needed -Lstub -ltorch_cuda"
        ninja.build(
            library, "link_cuda", objects, implicit=["stub/libtorch_cuda.so"], variables={"link": link}
        )
    else:
        ninja.build(library, "link", objects, variables={"link": libraries})
    face = f"{device}/face.o"
    ninja.build(
        face,
        "cxx",
        escape_path(str(SOURCES / "face.cpp")),
        variables={"define": f"{define} -DFACE=_{device}"},
    )
    ninja.build(
        f"_{device}{suffix}",
        "link_face",
        face,
        implicit=[library],
        variables={"link": f"-L. -lautoreid_fast_{device} '-Wl,-rpath,$$ORIGIN'"},
    )


setup(
    packages=[
        *find_packages(include=["autoreid_fast", "autoreid_fast.*"]),
        *(f"autoreid_fast.{folder}" for folder in ("kernels", "benchmarks")),
        *(f"autoreid_fast.kernels.{name}" for name in find_packages("kernels")),
        *(f"autoreid_fast.benchmarks.{name}" for name in find_packages("benchmarks")),
    ],
    package_dir={"autoreid_fast.kernels": "kernels", "autoreid_fast.benchmarks": "benchmarks"},
    include_package_data=False,
    package_data={
        "autoreid_fast": [
            "py.typed",
            "configs/presets/*.yaml",
            "models/*.json",
            "paper/specs/*.yaml",
            "report/pages/templates/*",
        ]
    },
    ext_modules=[Extension(f"autoreid_fast._{device}", []) for device in devices()],
    cmdclass={"build_ext": NinjaBuild},
)
