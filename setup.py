"""Build the packages and native libraries of autoreid_fast.

A native library is two files. `libautoreid_fast_<device>.so` has the ops, on PyTorch's stable ABI: one build
serves torch 2.11 to 2.13 and every Python. `_<device>.<python tag>.so` beside it is a Python module with
facts about the build; on another Python the ops load without it.

- CPU: always, unless AUTOREID_FAST_BACKEND=reference or there is no C++ compiler. Then a line says so, and
  the package is pure Python.
- CUDA: where torch has CUDA and nvcc is found, or with AUTOREID_FAST_CUDA=1 (an error without nvcc). It
  needs no CUDA libraries of torch: the one symbol that it uses, the current stream, is looked up in
  libtorch_cuda.so when it is loaded. So it compiles and links against a CPU build of torch too.

Sources are found by name in csrc/<op>/: *_cpu.cpp for the CPU, *.cu for CUDA, *_torch.cpp for both; an op
without a .cu is left out of the CUDA library.

AUTOREID_FAST_SANITIZE=address or =thread builds the CPU library for GCC's sanitizers (`make sanitize`,
`make tsan`), in its own build folder.

torch's own BuildExtension is not used: it needs ATen, CUDA_HOME and torch's exact CUDA version.
"""

import os
import re
import shlex
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
TORCH_TARGET_VERSION = "0x020b000000000000ULL"  # 2.11: the oldest torch that can load the libraries
CUDA_ARCHS = ("80", "90", "100")
SANITIZERS = {
    "": "-O3",
    "address": "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all",
    "thread": "-O1 -g -fsanitize=thread",
}
CUDA_STUB = "stub/libtorch_cuda.so"


def sanitizer() -> str:
    """ "address" (and undefined behaviour), "thread", or "" for none."""
    name = os.environ.get("AUTOREID_FAST_SANITIZE", "")
    if name not in SANITIZERS:
        sys.exit(f"autoreid_fast: AUTOREID_FAST_SANITIZE is {name!r}; expected 'address' or 'thread'")
    return name


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))


def devices() -> list[str]:
    """The libraries to build; prints a line for each that is left out."""
    if os.environ.get("AUTOREID_FAST_BACKEND") == "reference":
        print("autoreid_fast: AUTOREID_FAST_BACKEND=reference: pure Python, no native library")
        return []
    if compiler() is None:
        print("autoreid_fast: no C++ compiler (g++ or $CXX): pure Python, no native library")
        return []
    import torch

    if sanitizer():
        return ["cpu"]
    required = os.environ.get("AUTOREID_FAST_CUDA") == "1"
    if required and nvcc() is None:
        sys.exit("autoreid_fast: AUTOREID_FAST_CUDA=1, but nvcc is neither on PATH nor in $CUDA_HOME/bin")
    if torch.version.cuda is not None and nvcc() is None:
        print("autoreid_fast: torch has CUDA, but there is no nvcc: no CUDA library")
    return ["cpu", "cuda"] if nvcc() and (required or torch.version.cuda is not None) else ["cpu"]


def has_python_headers() -> bool:
    """Whether the Python modules can be built (on Debian, python3-dev has the headers); the ops need none."""
    return (Path(sysconfig.get_path("include")) / "Python.h").is_file()


class NinjaBuild(build_ext):
    """Builds all libraries in build/native with one ninja file, then copies them to the package."""

    def run(self) -> None:
        if not self.extensions:
            return
        name = f"native-{sanitizer()}" if sanitizer() else "native"
        folder = ROOT / "build" / name  # not build_temp, which pip deletes
        folder.mkdir(parents=True, exist_ok=True)
        if not has_python_headers():
            print("autoreid_fast: no Python.h (python3-dev): the ops are built without the facts of `doctor`")
        targets = [file for extension in self.extensions for file in self.files(extension)]
        write_ninja(folder / "build.ninja", [device_of(extension) for extension in self.extensions])
        subprocess.run([sys.executable, "-m", "ninja", "-C", folder, *targets], check=True)
        package = ROOT / "autoreid_fast" if self.inplace else Path(self.build_lib) / "autoreid_fast"
        package.mkdir(parents=True, exist_ok=True)
        for name in targets:  # by rename: a running process keeps the file that it has mapped
            shutil.copy2(folder / name, package / f"{name}.new")
            (package / f"{name}.new").replace(package / name)

    def files(self, extension: Extension) -> list[str]:
        """The library and, with Python's headers, the Python module of one device."""
        library = f"libautoreid_fast_{device_of(extension)}.so"
        module = Path(self.get_ext_filename(extension.name)).name
        return [library, module] if has_python_headers() else [library]

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / "autoreid_fast"
        return [str(folder / file) for extension in self.extensions for file in self.files(extension)]


def device_of(extension: Extension) -> str:
    return extension.name.rpartition("._")[2]


def write_ninja(path: Path, names: list[str]) -> None:
    """Write the rules and build edges of all libraries."""
    from ninja.ninja_syntax import Writer

    with path.open("w") as file:
        ninja = Writer(file, width=200)
        write_rules(ninja)
        if "cuda" in names:
            # Stands in for libtorch_cuda.so at link time, which a CPU build of torch does not have.
            ninja.build(CUDA_STUB, "stub", variables={"symbol": "aoti_torch_get_current_cuda_stream"})
        for device in names:
            write_library(ninja, device)


def write_rules(ninja: Any) -> None:
    import pybind11
    import torch

    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    cxx, cuda_cxx = quoted(compiler()), quoted(nvcc())
    compiler_name = f"'-DCOMPILER_NAME=\"{version.splitlines()[0]}\"'"
    torch_root = Path(torch.__file__).parent
    folders = (torch_root / "include", pybind11.get_include(), sysconfig.get_path("include"))
    includes = " ".join(f"-isystem {quoted(folder)}" for folder in folders)
    archs = " ".join(f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHS)
    newest = f"-gencode arch=compute_{CUDA_ARCHS[-1]},code=compute_{CUDA_ARCHS[-1]}"
    sanitized = " ".join(re.findall(r"-fsanitize=\S+", SANITIZERS[sanitizer()]))

    ninja.variable("torch_libraries", f"-L{quoted(torch_root / 'lib')} -ltorch_cpu -lc10")
    ninja.variable(
        "flags",
        f"-std=c++20 {SANITIZERS[sanitizer()]} -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi "
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION} {compiler_name} {includes}",
    )
    ninja.rule("cxx", f"{cxx} $flags $defines -MD -MF $out.d -c $in -o $out", depfile="$out.d", deps="gcc")
    ninja.rule(
        "nvcc",  # ptxas reports registers and spills to a log beside the object; a test reads it
        f"{cuda_cxx} -std=c++20 -O3 {archs} {newest} -Xcompiler -fPIC,-fvisibility=hidden -Xptxas -v "
        "-MD -MF $out.d -c $in -o $out > $out.log 2>&1 || (cat $out.log && false)",
        depfile="$out.d",
        deps="gcc",
    )
    ninja.rule("link_cpu", f"{cxx} -shared {sanitized} -Wl,-z,defs $in -o $out $torch_libraries")
    ninja.rule(
        "link_cuda",
        f"{cuda_cxx} -shared -cudart static -Xlinker -z,defs $in -o $out $torch_libraries "
        f"-Xlinker --no-as-needed -L{Path(CUDA_STUB).parent} -ltorch_cuda",
    )
    # Without -z,defs: the interpreter provides Python's symbols.
    ninja.rule("link_module", f"{cxx} -shared {sanitized} $in -o $out -L. $library '-Wl,-rpath,$$ORIGIN'")
    stub = "-shared -fPIC -Wl,-soname,libtorch_cuda.so -x c++ - -o $out"
    ninja.rule("stub", f"echo 'extern \"C\" void $symbol() {{}}' | {cxx} {stub}")


def quoted(path: Path | str | None) -> str:
    """A path in a command of a ninja file."""
    return shlex.quote(str(path)).replace("$", "$$")


def sources_of(device: str) -> list[Path]:
    kernels = sorted(SOURCES.glob("*/*.cu" if device == "cuda" else "*/*_cpu.cpp"))
    folders = {kernel.parent for kernel in kernels}
    checks = [file for file in sorted(SOURCES.glob("*/*_torch.cpp")) if file.parent in folders]
    sources = [*checks, *kernels, SOURCES / f"library_{device}.cpp"]
    return [*sources, SOURCES / "thread_sanitizer.cpp"] if sanitizer() == "thread" else sources


def write_library(ninja: Any, device: str) -> None:
    """Write the build edges of one device: objects, library, Python module."""
    defines = ""
    if device == "cuda":
        archs = " ".join(f"sm_{arch}" for arch in CUDA_ARCHS)
        defines = f"-DUSE_CUDA -DCUDA_ARCHS='\"{archs}\"'"

    def compile_source(source: Path, target: str, *, more: str = "") -> str:
        rule = "nvcc" if source.suffix == ".cu" else "cxx"
        ninja.build(target, rule, str(source).replace("$", "$$"), variables={"defines": defines + more})
        return target

    objects = [compile_source(source, f"{device}/{source.name}.o") for source in sources_of(device)]
    library = f"libautoreid_fast_{device}.so"
    ninja.build(library, f"link_{device}", objects, implicit=[CUDA_STUB] if device == "cuda" else None)
    if not has_python_headers():
        return
    face = compile_source(SOURCES / "face.cpp", f"{device}/face.o", more=f" -DFACE=_{device}")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    variables = {"library": f"-lautoreid_fast_{device}"}
    ninja.build(f"_{device}{suffix}", "link_module", face, implicit=[library], variables=variables)


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
