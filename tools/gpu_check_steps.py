"""What tools/gpu_check runs after the build: one line a step. The most important stand first, as time may not suffice for all."""

import dataclasses
import json
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


def verify_figure(output):
    """How many values were compared and the worst difference, of verify's last line."""
    lines = [line for line in output.splitlines() if line.startswith('{"')]
    if not lines:
        return ""
    result = json.loads(lines[-1])
    return f"{result['entries']} entries, worst {result['worst']['relative']:.1e}"


def layer_figure(output):
    """"moe 1.25, source 1.26 x gemm (41 TFLOP/s)" of the last comparison of bench_moe_layer."""
    rows = re.findall(r"(?m)^ +\d+ +\d+ (\w+) +(?:[\d.]+ +){3}([\d.]+) +([\d.]+) ", output)
    last = rows[max((i for i, row in enumerate(rows) if row[0] == "gemm"), default=len(rows)):]
    ratios = ", ".join(f"{form} {ratio}" for form, _, ratio in last[1:])
    return f"{ratios} x gemm ({last[0][1]} TFLOP/s)" if ratios else ""


def steps_figure(output):
    """Tokens a second of each kind of model, of bench_train_step."""
    rows = re.findall(r"(?m)^(\w+) +([\d.]+) +[\d.]+ +[\d.]+ ", output)
    return ", ".join(f"{kind} {float(speed):.0f}" for kind, speed in rows) + " tok/s" if rows else ""


def loss_figure(output):
    return last_match(r'"loss":([.\d]+)', output)


@dataclasses.dataclass(frozen=True)
class Step:
    """A command; it fails by another exit code than 0, at its limit, or where its output does not match `expect`."""

    name: str
    # Words; @PROGRAM is a program of the build folder, where there are programs for GPUs the one of that name and -cuda,
    # and %BUILD% the folder.
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


def verify(case, ranks=1, transport="nccl", dtype="float64"):
    """A golden case of tests/data, which another implementation computed: logits, losses, gradients, routing, tokens."""
    return Step(f"verify {case} on {ranks}, {transport}, {dtype}",
                f"launch/mpirun -np {ranks} @hypermoe verify --model tests/data/{case} --set mesh.device=cuda "
                f"--set mesh.gpu_transport={transport} --set runtime.dtype={dtype}", 60, r'"ok":true', verify_figure, gpu=True,
                environment={**MPI_ENVIRONMENT, "OMP_NUM_THREADS": "1"})


def layer(name, shape):
    return Step(f"layer, {name}", f"@bench_moe_layer --set mesh.device=cuda --dtype bfloat16 --rounds 20 --warmup 5 {shape}", 90,
                r"(?m)^ +\d+ +\d+ source", layer_figure, gpu=True)


def distributed_tests(ranks):
    environment = {**MPI_ENVIRONMENT, "OMP_NUM_THREADS": "1", "HYPERMOE_EXPECT_RANKS": str(ranks)}
    return Step(f"distributed tests on {ranks}", f"launch/mpirun -np {ranks} @tests/distributed_tests", 90,
                r"\[  PASSED  \] [1-9]", tests_figure, environment=environment)


# launch/quickstart's run anew, on the GPU.
TOKENS = "%BUILD%/gpu_check_tokens"
TRAIN = (f'rm -rf %BUILD%/gpu_check_run {TOKENS}.bin {TOKENS}.idx && '
         f'"$0" prepare --input configs/data/tiny_shakespeare/input.txt --tokenizer byte --output {TOKENS} && '
         f'exec "$0" pretrain --config configs/quickstart.textproto --run_dir %BUILD%/gpu_check_run '
         f'--set data.train={TOKENS} --set mesh.device=cuda')

STEPS = [
    Step("env", "@hypermoe env", 30, "LibTorch", libtorch_figure),
    unit_tests("kernels", 90),
    verify("gpt2_hyper"),
    *(verify(case, ranks, "host_staged") for case in ("gpt2_hyper", "golden_cases/selected_k2") for ranks in (2, 4)),
    verify("gpt2_hyper", dtype="float32"),
    verify("gpt2_moe_noisy"),
    Step("train as quickstart", f"sh -c '{TRAIN}' @hypermoe", 150, r"step 1400/1400",
         lambda output: last_match(r"(\S+ tok/s)", output), gpu=True),
    # Within 1 % of what two CPU ranks reached: 1.6609.
    Step("evaluate what it trained", "@hypermoe evaluate --checkpoint %BUILD%/gpu_check_run --set mesh.device=cuda", 60,
         r'"loss":1\.(64[5-9]|6[56]\d|67[0-6])', loss_figure, gpu=True),
    layer("16384 x 768", "--tokens 16384 --experts 8,64 --bottleneck 64 --form gemm,moe,source,owner"),
    layer("8192 x 4096", "--tokens 8192 --width 4096 --ffn 14336 --experts 1,8 --bottleneck 64 --form gemm,moe,source"),
    Step("steps of GPT-2 small", "@bench_train_step --set mesh.device=cuda --dtype bfloat16 --layers 12 --batch 32 --sequence 1024 "
         "--steps 10 --warmup 3 --kind dense,moe,hyper", 120, r"(?m)^hyper ", steps_figure, gpu=True),
    Step("steps of Switch base", "@bench_switch_step --set mesh.device=cuda --dtype bfloat16 --layers 12 --batch 32 --steps 10 "
         "--warmup 3", 120, r"(?m)^hyper ", steps_figure, gpu=True),
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
