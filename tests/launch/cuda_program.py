"""hypermoe-cuda beside hypermoe: what both say about GPUs, on a machine with or without one.

  python3 cuda_program.py BUILD_DIR SOURCE_DIR
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = map(pathlib.Path, sys.argv[1:3])
TEXT = SOURCE / "configs" / "quickstart.textproto"


def run(program, *arguments, ranks=1):
    launcher = [SOURCE / "launch" / "mpirun", "-np", str(ranks)] if ranks > 1 else []
    return subprocess.run([*launcher, BUILD / program, *arguments], capture_output=True, text=True, timeout=120)


def gpus(program):
    """What `env` says of them, as (count, the whole line)."""
    result = run(program, "env")
    assert result.returncode == 0, result.stderr
    line = re.search(r"^  GPUs +(.*)$", result.stdout, re.M).group(1)
    count = re.match(r"\d+", line)
    return int(count.group()) if count else 0, line


class CudaProgramTest(unittest.TestCase):
    def pretrain(self, program, *sets, ranks=1):
        with tempfile.TemporaryDirectory() as folder:
            overrides = [word for assignment in sets for word in ("--set", assignment)]
            return run(program, "pretrain", "--config", TEXT, "--run_dir", f"{folder}/run", *overrides, ranks=ranks)

    def expect_error(self, result, *texts):
        self.assertEqual(result.returncode, 78, result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith("hypermoe: error: ")]
        self.assertEqual(len(errors), 1, result.stderr)
        for text in texts:
            self.assertIn(text, errors[0])

    def test_env_tells_the_programs_apart(self):
        self.assertEqual(gpus("hypermoe")[1], "none used: this program is for CPUs")
        self.assertRegex(gpus("hypermoe-cuda")[1], r"^\d+( x .*)?; CUDA 1\d\.\d+, driver (none|for CUDA \d+\.\d+)")

    def test_the_program_for_cpus_names_the_other(self):
        for ranks in 1, 2:
            self.expect_error(self.pretrain("hypermoe", "mesh.device=cuda", ranks=ranks), "start hypermoe-cuda")

    def test_no_gpu_is_an_error_and_never_a_fallback(self):
        count, line = gpus("hypermoe-cuda")
        if count:
            self.skipTest(f"this machine has GPUs: {line}")
        for ranks in 1, 2:
            for transport in "nccl", "host_staged":
                result = self.pretrain("hypermoe-cuda", "mesh.device=cuda", f"mesh.gpu_transport={transport}",
                                       ranks=ranks)
                self.expect_error(result, "has no GPU that CUDA can use", line, "mesh.device=cpu")

    def test_more_ranks_than_gpus_is_an_error(self):
        count, line = gpus("hypermoe-cuda")
        if not count:
            self.skipTest("this machine has no GPU")
        result = self.pretrain("hypermoe-cuda", "mesh.device=cuda", ranks=count + 1)
        self.expect_error(result, f"for {count + 1} ranks", "mesh.gpu_transport=host_staged")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
