#!/usr/bin/env python3
"""tools/gpu_check with faked surroundings: what it runs, reports and refuses; no GPU, no build, no download.

    tests/tools/gpu_check_test.py
"""

import json
import os
import shutil
import subprocess
import sys
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tools"))

import gpu_check_steps  # noqa: E402
from in_folder import InFolder, write_program  # noqa: E402

# Configures and "builds": copies of FAKE/programs, unless FAKE/broken_PROGRAM is there.
CMAKE = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >>"$FAKE/cmake.txt"
case "$1" in
  --fresh)
    [ ! -e "$FAKE/no_configure" ] || { printf 'CMake Error at CMakeLists.txt:7 (message):\n  no compiler\n'; exit 1; }
    mkdir -p "$5/tests"
    [ -e "$FAKE/no_cuda" ] || echo 'build hypermoe-cuda: phony' >"$5/build.ninja"
    ;;
  --build)
    [ ! -e "$FAKE/hang" ] || [ "${*: -1}" = -n ] || sleep 100
    build=$2 failed=0
    shift 5
    while [ "$1" != -- ]; do
      path=$build/$1
      [[ $1 != *_tests* ]] || path=$build/tests/$1
      if [ -e "$FAKE/broken_$1" ]; then
        printf 'FAILED: %s.o\nkernels/%s.cc:3:1: error: expected ;\n' "$1" "$1"
        failed=1
      elif [ "$3" = -n ]; then
        echo 'ninja: no work to do.'
      else
        cp "$FAKE/programs/${1%-cuda}" "$path"
      fi
      shift
    done
    exit $failed
    ;;
esac
"""
TESTS = "#!/bin/sh\necho '[  PASSED  ] 3 tests.'\n"
NVIDIA_SMI = "#!/bin/sh\necho 'NVIDIA H200, 9.0, 143771 MiB, 580.159.04'\n"
SANITIZER = """#!/bin/sh
[ "$PYTORCH_NO_CUDA_MEMORY_CACHING" = 1 ] || exit 1
"$5" && case "$2" in
  memcheck) echo '========= ERROR SUMMARY: 0 errors' ;;
  racecheck) echo '========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)' ;;
esac
"""
MPIRUN = """#!/bin/sh
[ "${HYPERMOE_EXPECT_RANKS:-$2}" = "$2" ] || exit 1
shift 2
exec "$@"
"""
# What each program says when all is well.
HYPERMOE = """#!/bin/sh
case "$1" in
  verify) echo '{"ok":true,"entries":5,"worst":{"relative":1.5e-15}}' ;;
  pretrain) echo 'step 1400/1400  loss 1.497  26.0k tok/s' ;;
  evaluate) echo '{"loss":1.6601,"tokens":7}' ;;
  *) echo 'LibTorch     2.11.0' ;;
esac
"""
BENCHMARKS = {
    "bench_moe_layer": " 8 64 gemm 2.0 1.9 2.1 412.5 1.000 (1\n 8 64 moe 2.2 2.1 2.3 375.0 1.100 (1\n 8 64 source 2.3 2.2 2.4 358.7 1.150 (1",
    "bench_train_step": "dense 500000.0 1.0 1.0 0.1\nhyper 450000.4 1.0 1.0 0.1",
    "bench_switch_step": "moe 300000.0 1.0 1.0 0.1\nhyper 290000.4 1.0 1.0 0.1",
}


class ScriptTest(InFolder):
    """tools/gpu_check as a user starts it."""

    def setUp(self):
        super().setUp()
        for name in ("bin", "programs", "torch/lib", "out"):
            os.makedirs(self.path(name))
        for name, text in (("cmake", CMAKE), ("nvidia-smi", NVIDIA_SMI), ("compute-sanitizer", SANITIZER), ("mpirun", MPIRUN)):
            write_program(self.path("bin", name), text)
        for step in gpu_check_steps.STEPS:
            for program in step.programs():
                write_program(self.path("programs", os.path.basename(program)), TESTS)
        write_program(self.path("programs", "hypermoe"), HYPERMOE)
        for name, text in BENCHMARKS.items():
            write_program(self.path("programs", name), f"#!/bin/sh\necho '{text}'\n")
        self.touch("torch/lib/libtorch_cpu.so")

    def touch(self, name):
        with open(self.path(name), "w", encoding="utf-8"):
            pass

    def check(self, *options, **environment):
        remove = ("CUDA_HOME", "MPI_HOME", "CUDACXX", "BUILD_DIR", "HYPERMOE_EXPECT_RANKS", "PYTORCH_NO_CUDA_MEMORY_CACHING")
        clean = {name: value for name, value in os.environ.items() if name not in remove}
        return subprocess.run(
            [sys.executable, "-B", os.path.join(SOURCE, "tools", "gpu_check"), "--build", self.path("build"), *options],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            env={**clean, "PATH": self.path("bin") + os.pathsep + os.environ["PATH"], "FAKE": self.folder,
                 "LIBTORCH_DIR": self.path("torch"), "OUT": self.path("out"), **environment})

    def report(self):
        with open(self.path("out", "gpu_check.json"), encoding="utf-8") as file:
            return json.load(file)

    def outcomes(self):
        return {step["name"]: (step["result"], step["note"]) for step in self.report()["steps"]}

    def cmake_calls(self):
        with open(self.path("cmake.txt"), encoding="utf-8") as file:
            return file.read().splitlines()

    def test_all_steps_on_a_gpu(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        report, outcomes = self.report(), self.outcomes()
        self.assertEqual(list(outcomes), ["configure", "build"] + [step.name for step in gpu_check_steps.STEPS])
        self.assertEqual({result for result, _ in outcomes.values()}, {"ok"}, outcomes)
        self.assertEqual(report["machine"]["gpu"]["name"], "NVIDIA H200")
        self.assertTrue(report["ok"])
        self.assertEqual(outcomes["kernels tests"][1], "3 passed")
        self.assertEqual(outcomes["kernels memcheck"][1], "ERROR SUMMARY: 0 errors")
        self.assertIn("/build/tests/kernels_tests-cuda", report["steps"][3]["command"])
        configure, build = self.cmake_calls()
        self.assertIn("-DHYPERMOE_CUDA=ON -DHYPERMOE_CUDA_ARCHITECTURES=90a", configure)
        self.assertIn(f"-DLIBTORCH_DIR={self.path('torch')}", configure)
        self.assertRegex(build, r"--target hypermoe-cuda kernels_tests-cuda .*distributed_tests-cuda -- -k 0$")
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), len(outcomes) + 2)
        self.assertRegex(lines[-1], rf"^{len(outcomes)} ok, 0 failed, 0 skipped in \d+ of 530 s$")
        self.assertEqual(outcomes["verify gpt2_hyper on 4, host_staged, float64"][1], "5 entries, worst 1.5e-15")
        self.assertEqual(outcomes["train as quickstart"][1], "26.0k tok/s")
        self.assertEqual(outcomes["evaluate what it trained"][1], "1.6601")
        self.assertEqual(outcomes["layer, 16384 x 768"][1], "moe 1.100, source 1.150 x gemm (412.5 TFLOP/s)")
        self.assertEqual(outcomes["steps of GPT-2 small"][1], "dense 500000, hyper 450000 tok/s")
        self.assertRegex(done.stderr, r"(?m)^gpu_check: \[ +\d+ s\] kernels tests: ok 3 passed$")

    def test_failures_do_not_stop_what_follows(self):
        write_program(self.path("programs", "kernels_tests"), "#!/bin/sh\necho 'a_test.cc:5: Failure\nExpected: 1'; exit 1\n")
        write_program(self.path("programs", "model_tests"), "#!/bin/sh\necho nothing\n")
        write_program(self.path("programs", "runtime_tests"), TESTS + "printf 'a_test.cc:9: Skipped\\nno GPU is there\\n'\n")
        # An older program that the build could not bring up to date must not be taken.
        os.makedirs(self.path("build", "tests"))
        write_program(self.path("build", "tests", "parallel_tests-cuda"), TESTS)
        self.touch("broken_parallel_tests-cuda")
        done = self.check()
        self.assertEqual(done.returncode, 1, done.stderr)
        outcomes = self.outcomes()
        self.assertEqual(outcomes["build"], ("FAILED", "exit code 1: kernels/parallel_tests-cuda.cc:3:1: error: expected ;"))
        self.assertEqual(outcomes["kernels tests"], ("FAILED", "exit code 1: a_test.cc:5: Failure Expected: 1"))
        self.assertEqual(outcomes["kernels memcheck"][0], "FAILED")
        self.assertEqual(outcomes["parallel tests"], ("FAILED", "tests/parallel_tests-cuda was not built"))
        self.assertEqual(outcomes["model tests"][0], "FAILED")
        self.assertEqual(outcomes["runtime tests"], ("FAILED", "a test was skipped for want of a GPU: no GPU is there"))
        self.assertEqual(outcomes["tools tests"], ("ok", "3 passed"))
        self.assertRegex(done.stdout, rf"\n{len(outcomes) - 7} ok, 7 failed, 0 skipped in \d+ of 530 s\n\Z")

    def test_another_loss_than_on_cpus_is_a_failure(self):
        for loss, result in (("1.6449", "FAILED"), ("1.6450", "ok"), ("1.6609", "ok"), ("1.6769", "ok"), ("1.6770", "FAILED")):
            write_program(self.path("programs", "hypermoe"), HYPERMOE.replace("1.6601", loss))
            self.check("--only=evaluate what it trained")
            self.assertEqual(self.outcomes()["evaluate what it trained"][0], result, loss)

    def test_nothing_is_taken_for_a_gpu(self):
        write_program(self.path("bin", "nvidia-smi"), "#!/bin/sh\necho 'No devices were found'; exit 6\n")
        done = self.check()
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Agpu_check: error: there is no GPU: .*--without-gpu")
        self.assertFalse(os.path.exists(self.path("cmake.txt")))

    def test_rehearsal_without_a_gpu(self):
        write_program(self.path("bin", "nvidia-smi"), "#!/bin/sh\nexit 6\n")
        for suffix in ("-cuda", ""):
            if not suffix:
                self.touch("no_cuda")
                os.remove(self.path("build", "build.ninja"))
            done = self.check("--without-gpu")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            outcomes = self.outcomes()
            self.assertEqual({name for name in outcomes if outcomes[name] == ("skipped", "needs a GPU")},
                             {step.name for step in gpu_check_steps.STEPS if step.gpu})
            self.assertEqual(outcomes["kernels tests"], ("ok", "3 passed"))
            self.assertIn("-DHYPERMOE_CUDA=AUTO", self.cmake_calls()[-2])
            self.assertIn(f"--target hypermoe{suffix} kernels_tests{suffix} ", self.cmake_calls()[-1])

    def test_missing_sanitizer(self):
        os.remove(self.path("bin", "compute-sanitizer"))
        if shutil.which("compute-sanitizer") or os.path.exists("/usr/local/cuda/bin/compute-sanitizer"):
            self.skipTest("this machine has compute-sanitizer")
        self.assertEqual(self.check().returncode, 0)
        self.assertEqual(self.outcomes()["kernels racecheck"],
                         ("skipped", "there is no compute-sanitizer in PATH or the CUDA toolkit"))

    def test_budget(self):
        done = self.check("--budget=59")
        self.assertEqual(done.returncode, 0, done.stderr)
        outcomes = self.outcomes()
        self.assertEqual(outcomes["env"][0], "ok")
        self.assertEqual(outcomes["kernels tests"][0], "skipped")
        self.assertRegex(outcomes["kernels tests"][1], r"^may take 90 s, and 5\d s of the budget are left$")
        self.assertRegex(done.stdout, rf"\n3 ok, 0 failed, {len(outcomes) - 3} skipped in ")

        self.touch("hang")
        done = self.check("--budget=1", "--only", "env")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(self.outcomes()["build"][1], "^ended after 1 s, its limit")

    def test_nothing_to_build(self):
        self.touch("no_configure")
        self.assertEqual(self.check("--only", "kernels*,env").returncode, 1)
        self.assertEqual(self.outcomes(), {
            "configure": ("FAILED", "exit code 1: CMake Error at CMakeLists.txt:7 (message): no compiler"),
            **{name: ("skipped", "nothing could be built")
               for name in ("env", "kernels tests", "kernels memcheck", "kernels racecheck")}})

    def test_what_is_wrong_with_the_call_is_one_line(self):
        for code, pattern, done in (
                (64, "--budget is 0: expected seconds above 0", self.check("--budget=0")),
                (64, "--only names 'kernel', and no step is called so", self.check("--only=env,kernel")),
                (64, "--use is .*: expected a folder made by --package", self.check("--use", self.folder)),
                (64, "unrecognized arguments: --gpu", self.check("--gpu")),
                (1, "has no lib/libtorch_cpu.so: set LIBTORCH_DIR", self.check(LIBTORCH_DIR=self.folder)),
                (1, "is there and no package", self.check("--package", self.folder))):
            self.assertEqual((done.returncode, done.stdout), (code, ""))
            self.assertRegex(done.stderr, rf"\Agpu_check: error: .*{pattern}.*\n\Z")

    def test_package_is_given_to_all_that_is_started(self):
        os.makedirs(self.path("package"))
        self.touch("package/packages.txt")
        write_program(self.path("programs", "hypermoe"), "#!/bin/sh\necho \"LibTorch $OPAL_PREFIX $CMAKE_PREFIX_PATH\"\n")
        done = self.check("--use", self.path("package"), "--only=env", CMAKE_PREFIX_PATH="/opt/other")
        self.assertEqual(done.returncode, 0, done.stderr)
        usr = self.path("package", "usr")
        self.assertEqual(self.outcomes()["env"][1], f"LibTorch {usr} {usr}:/opt/other")

    def test_steps_are_listed(self):
        done = self.check("--list")
        self.assertEqual(done.returncode, 0)
        names = [line.split(" s  ")[1] for line in done.stdout.splitlines()]
        self.assertEqual(names, [step.name for step in gpu_check_steps.STEPS])


if __name__ == "__main__":
    unittest.main()
