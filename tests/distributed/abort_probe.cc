// A job that goes wrong on its last rank while the others wait for it: mpirun -np 2 abort_probe
// abort|throw Either way the whole job must end soon, with exit code 42.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include "launch/distributed_init.h"

namespace hypermoe {
namespace {

constexpr int kExitCode = 42;

void Run(const std::string& way, int* argc, char*** argv) {
  DistributedContext context(argc, argv);
  if (context.world()->rank() == context.world()->size() - 1) {
    if (way == "abort") Abort(kExitCode);
    throw std::runtime_error("planted");
  }
  context.world()->Barrier();
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) {
  const std::string way = argc > 1 ? argv[1] : "";
  try {
    hypermoe::Run(way, &argc, &argv);
  } catch (const std::exception&) {
    // Not Abort: what is shown is that neither the context nor the end of the process waits for the
    // others.
    return hypermoe::kExitCode;
  }
  return 0;
}
