"""What the comparisons with other people's programs share: a virtual environment with PyTorch, and measuring in rounds."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("HYPERMOE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hypermoe")
VENV = os.path.join(CACHE, "pytorch-venv")
PYTHON = os.path.join(VENV, "bin", "python")

TORCH = "torch==2.11.0"
PURE_PYTHON = ["typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "MarkupSafe", "fsspec", "filelock"]
# The official build is linked against all of CUDA, also for work on the CPU: where each library comes from. Those that
# the machine has are not fetched.
CUDA_LIBRARIES = {
    "libcublas": "nvidia-cublas", "libcublasLt": "nvidia-cublas", "libcudart": "nvidia-cuda-runtime",
    "libcudnn": "nvidia-cudnn-cu13==9.19.0.56", "libcufft": "nvidia-cufft", "libcufile": "nvidia-cufile",
    "libcupti": "nvidia-cuda-cupti", "libcurand": "nvidia-curand", "libcusolver": "nvidia-cusolver",
    "libcusparse": "nvidia-cusparse", "libcusparseLt": "nvidia-cusparselt-cu13==0.8.0", "libnccl": "nvidia-nccl-cu13==2.28.9",
    "libnvJitLink": "nvidia-nvjitlink", "libnvrtc": "nvidia-cuda-nvrtc", "libnvshmem_host": "nvidia-nvshmem-cu13==3.4.5",
}


def say(text):
    print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr, flush=True)


def run(command, **options):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def import_error(module="torch"):
    """Why a module of the virtual environment cannot be used, or None."""
    if not os.path.exists(PYTHON):
        return f"{VENV} is not there: --install makes it"
    done = run([PYTHON, "-W", "ignore", "-c", f"import {module}"])
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["import failed"])[-1]


def pip(packages, *options):
    """Installs packages; an error text, or None."""
    say(f"installing {' '.join(packages)}")
    done = run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--find-links",
                os.path.join(CACHE, "wheels"), *options] + packages)
    return None if done.returncode == 0 else f"pip install {' '.join(packages)} failed: {done.stderr.strip().splitlines()[-1]}"


def install_torch():
    """Makes the virtual environment; an error text, or None."""
    if not os.path.exists(PYTHON):
        done = run([sys.executable, "-m", "venv", VENV])
        if done.returncode != 0:
            return f"no virtual environment (Debian: apt-get install python3-venv): {(done.stdout + done.stderr).strip()[:300]}"
    if import_error() is None:
        return None
    error = pip([TORCH] + PURE_PYTHON, "--no-deps")
    for _ in CUDA_LIBRARIES:
        if error is not None:
            return error
        problem = import_error()
        missing = re.search(r"(lib\w+)\.so[.\d]*: cannot open shared object file", problem or "")
        if missing is None or missing.group(1) not in CUDA_LIBRARIES:
            return problem
        error = pip([CUDA_LIBRARIES[missing.group(1)]], "--no-deps")
    return import_error()


def install(package, module):
    """A package beside PyTorch, with what it depends on; an error text, or None."""
    error = install_torch()
    if error is None and import_error(module) is not None:
        error = pip([package])
    return error or import_error(module)


def measure(command, environment):
    """The result lines of one program, by kind; ends here if it fails."""
    done = run(command, env=environment)
    if done.returncode != 0:
        say(f"error: {' '.join(command)} ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        sys.exit(done.returncode if 0 < done.returncode < 128 else 70)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        if "machine" in line:
            machine = line["machine"]
            say(f"load {machine['load']:.2f}, {machine['threads']} threads on {machine['cores']} cores of {machine['cpu']}")
    return {line["kind"]: line["tokens_per_second"] for line in lines if "kind" in line}


def measure_rounds(rounds, threads, own, other):
    """Of two programs in turn, there and back (A B, B A, ...), one process each; lists of their rounds' results. other may be None."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    ours, theirs = [], []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        turns = [(own, ours)] + ([(other, theirs)] if other else [])
        for command, results in turns if number % 2 == 0 else reversed(turns):
            results.append(measure(command, environment))
    return ours, theirs


def column(values):
    if not values:
        return f"{'-':>30}"
    return f"{statistics.median(values):10.1f} {f'({min(values):.1f} to {max(values):.1f})':>19}"


def print_table(name, kinds, ours, theirs):
    print(f"{'kind':10} {'hypermoe tokens/s (range)':>30} {f'{name} tokens/s (range)':>30} {'ratio (range)':>24}")
    for kind in kinds:
        own, other = [r[kind] for r in ours], [r[kind] for r in theirs if kind in r]
        ratios = [a / b for a, b in zip(own, other)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else "-"
        print(f"{kind:10} {column(own)} {column(other)} {ratio:>24}")


def parser_of(description, program, kinds, installs, shape):
    """Options of a comparison of build/`program`; shape: names and defaults of its numbers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help=f"first install {installs} into {VENV}")
    parser.add_argument("--build", default=os.environ.get("BUILD_DIR", os.path.join(ROOT, "build")), help="build folder")
    parser.add_argument("--kind", default=kinds, help=f"of {program}")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    for name, default in shape:
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser


def program_of(arguments, name):
    program = os.path.join(arguments.build, name)
    if not os.path.exists(program):
        say(f"error: {program} is missing: build it by  ninja -C {arguments.build} {name}")
        sys.exit(74)
    return program


def options_of(arguments, names):
    return [f"--{name}={getattr(arguments, name)}" for name in names]
