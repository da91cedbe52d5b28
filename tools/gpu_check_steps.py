"""What tools/gpu_check runs after the build: one line a step. The most important stand first, as time may not suffice for all."""

import dataclasses
import re
from typing import Callable

# Any number of ranks on any machine, as root too; a rank that waits gives its core away.
MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
                   "OMPI_MCA_hwloc_base_binding_policy": "none"}


def last_match(pattern, output):
    return ([""] + re.findall(pattern, output))[-1]


def tests_figure(output):
    """"120 passed, 3 skipped" of GoogleTest's output."""
    counts = [(last_match(rf"\[  {word} *\] (\d+) test", output), word.lower()) for word in ("PASSED", "SKIPPED")]
    return ", ".join(f"{count} {text}" for count, text in counts if count)


def summary_figure(output):
    return last_match(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", output)


def libtorch_figure(output):
    return last_match(r"(?m)^(LibTorch .*)$", output)


@dataclasses.dataclass(frozen=True)
class Step:
    """A command; it fails by another exit code than 0, at its limit, or where its output does not match `expect`."""

    name: str
    # Words; @PROGRAM is a program of the build folder, where there are programs for GPUs the one of that name and -cuda.
    command: str
    limit: int  # seconds; a step that takes longer is ended
    expect: str  # a regular expression
    figure: Callable[[str], str]  # of the output: what the table shows
    gpu: bool = False  # makes no sense without a GPU
    tool: str = ""  # a program of the CUDA toolkit that not every machine has: without it the step is left out
    environment: dict = dataclasses.field(default_factory=dict)

    def programs(self):
        return [word[1:] for word in self.command.split() if word.startswith("@")]


def unit_tests(layer, limit=60):
    return Step(f"{layer} tests", f"@tests/{layer}_tests", limit, r"\[  PASSED  \] [1-9]", tests_figure)


def sanitizer(name, expect):
    # Tensors in blocks of their own, or memcheck would not see that a kernel leaves one for its neighbour.
    return Step(f"kernels {name}", f"compute-sanitizer --tool {name} --error-exitcode 99 @tests/kernels_tests", 120, expect,
                summary_figure, gpu=True, tool="compute-sanitizer", environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def distributed_tests(ranks):
    environment = {**MPI_ENVIRONMENT, "OMP_NUM_THREADS": "1", "HYPERMOE_EXPECT_RANKS": str(ranks)}
    return Step(f"distributed tests on {ranks}", f"launch/mpirun -np {ranks} @tests/distributed_tests", 90,
                r"\[  PASSED  \] [1-9]", tests_figure, environment=environment)


STEPS = [
    Step("env", "@hypermoe env", 30, "LibTorch", libtorch_figure),
    unit_tests("kernels", 90),
    sanitizer("memcheck", "ERROR SUMMARY: 0 errors"),
    sanitizer("racecheck", "RACECHECK SUMMARY: 0 hazards"),
    unit_tests("parallel"),
    unit_tests("model"),
    unit_tests("runtime"),
    unit_tests("launch"),
    unit_tests("tools"),
    distributed_tests(1),
    distributed_tests(2),
    distributed_tests(4),
]
