"""Jobs of launch/mpirun seen from outside, through /proc: their ranks, what those hold, what outlives them."""

import os
import signal
import subprocess
import time
import uuid

MARK = "HYPERMOE_SOAK_JOB"  # in the environment of every process of a job


def read(path):
    """A file of /proc, or nothing once its process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def environment_of(pid):
    pairs = (entry.partition(b"=") for entry in read(f"/proc/{pid}/environ").split(b"\0"))
    return {name.decode(): value.decode(errors="replace") for name, _, value in pairs}


class Job:
    """`command` on `ranks` ranks in `folder`, its output appended to `log`."""

    def __init__(self, source, ranks, command, folder, log):
        self.num_ranks, self.mark, self.pids = ranks, uuid.uuid4().hex, {}
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", **{MARK: self.mark})
        launcher = [os.path.join(source, "launch/mpirun"), "-np", str(ranks)]
        with open(log, "ab") as output:
            self.process = subprocess.Popen(launcher + command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=output, start_new_session=True)
        self.start = time.monotonic()

    def ended(self):
        return self.process.poll() is not None

    def find_ranks(self):
        """Process ids by rank, as many as there are already."""
        if len(self.pids) < self.num_ranks:
            for pid in self.processes():
                rank = environment_of(pid).get("OMPI_COMM_WORLD_RANK")
                if rank is not None:
                    self.pids[int(rank)] = pid
        return self.pids

    def processes(self):
        """All processes of the job that still run, wherever they hang in the tree of processes."""
        wanted = f"{MARK}={self.mark}".encode()
        found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in found if wanted in read(f"/proc/{pid}/environ").split(b"\0")]

    def shared_memory(self):
        """Files in /dev/shm that ranks have open or mapped."""
        maps = b"".join(read(f"/proc/{pid}/maps") for pid in self.pids.values()).split(b"\n")
        return {line[line.index(b"/dev/shm/"):].decode() for line in maps if b" /dev/shm/" in line and b"(deleted)" not in line}

    def kill_rank(self, rank):
        try:
            os.kill(self.find_ranks()[rank], signal.SIGKILL)
        except ProcessLookupError:
            pass  # at its end; the exit code tells

    def wait(self, seconds):
        """The exit code and the seconds waited; ends the job by force if it does not end itself ("hung")."""
        begin = time.monotonic()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            code = "hung"
        return code, time.monotonic() - begin

    def leftovers(self, shared_memory, seconds):
        """What is still there of the ended job after at most `seconds`: sentences. Kills processes that are."""
        end = time.monotonic() + seconds
        while True:
            orphans = self.processes()
            files = [path for path in shared_memory if os.path.exists(path)]
            if not orphans and not files:
                return []
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        return [f"process {pid} outlived its job" for pid in orphans] + [f"{path} was left" for path in files]

    def usage(self):
        """(resident KiB, open files) of each rank."""
        figures = []
        for pid in self.find_ranks().values():
            pages = read(f"/proc/{pid}/statm").split()
            try:
                files = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue
            if len(pages) > 1:
                figures.append((int(pages[1]) * os.sysconf("SC_PAGE_SIZE") // 1024, files))
        return figures


def check_leftovers_are_seen(source, folder):
    """A check that sees nothing left would prove nothing: a process that was left is seen, and ended."""
    job = Job(source, 1, ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &"], folder, os.path.join(folder, "leftovers.log"))
    job.wait(60)
    shared = os.path.join(folder, "leftovers.log")
    if len(job.leftovers({shared}, 0)) != 2 or job.leftovers(set(), 10):
        raise SystemExit("a process and a file that were left on purpose were not seen")
