// The pybind11 module `_<device>` of a native library: what Python sees of it besides its ops. Importing it loads the library beside it, which registers the ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "library.h"

PYBIND11_MODULE(FACE, module) {
  namespace py = pybind11;
  using namespace autoreid_fast;
  module.doc() = "Facts about a native library; importing this module registers its ops.";
  module.def("facts", &facts,
             "Return name -> value: compiler, torch version, instruction sets or CUDA architectures.");
#ifdef USE_CUDA
  py::class_<KernelFacts>(module, "KernelFacts")
      .def_readonly("name", &KernelFacts::name)
      .def_readonly("registers", &KernelFacts::registers)
      .def_readonly("shared_bytes", &KernelFacts::shared_bytes)
      .def_readonly("local_bytes", &KernelFacts::local_bytes)
      .def_readonly("blocks_per_multiprocessor", &KernelFacts::blocks_per_multiprocessor);
  module.def("kernel_facts", &kernel_facts,
             "Return registers, memory and occupancy of each kernel on the current GPU.");
#else
  module.def(
      "use_instruction_set", &use_instruction_set, py::arg("name"),
      "Compute with 'avx512', 'avx2', 'portable' or the 'best' of them from now on; return the one in use.");
#endif
}
