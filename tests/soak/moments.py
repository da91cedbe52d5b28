"""When to kill a rank, and what it was doing then."""

import time

import processes


def phase_of_start(job, rank):
    """Of a rank that has not trained yet."""
    return "load" if b"/checkpoints/" in processes.read(f"/proc/{job.pids[rank]}/maps") else "start"


def phase_of(run, at_start, validate_every):
    """What a killed job was doing, from what it left; `at_start`: what phase_of_start said before."""
    if run.saving():
        return "save"
    if run.step() == run.begins_at:
        return at_start
    due = run.step() % validate_every == 0
    return "evaluation" if due and run.last_line().get("kind") == "train" else "step"


def until(job, condition):
    """Waits for `condition`; false if the job ends before."""
    while not condition():
        if job.ended():
            return False
        time.sleep(0.0003)
    return True


class Moments:
    """One moment of each kind, drawn at random."""

    def __init__(self, rng, arguments, start_seconds, step_seconds):
        self.save_every, self.validate_every = arguments.save_every, arguments.validate_every
        self.saves_before = rng.randint(0, 5)
        # Seconds from the event that a kind waits for to the kill.
        self.delays = {"start": rng.uniform(0, start_seconds), "anywhere": rng.uniform(0, 60 * step_seconds),
                       "exponential": rng.expovariate(1 / (arguments.mean_seconds or 1)),
                       "save": rng.choice([0, 0, rng.uniform(0, 0.003)]), "load": 0, "evaluation": 0}

    def wait_for(self, kind, job, run, rank):
        """Waits until it is time to kill `rank`; false if the job ends before."""
        saved = run.begins_at + self.saves_before * self.save_every
        evaluated = (run.begins_at // self.validate_every + 1) * self.validate_every
        events = {
            "start": lambda: True,
            "load": lambda: phase_of_start(job, rank) == "load" or run.step() > run.begins_at,
            "save": lambda: run.newest() >= saved and run.saving(),
            "evaluation": lambda: run.step() >= evaluated,
            "anywhere": lambda: run.step() > run.begins_at,
            "exponential": lambda: True,
        }
        if not until(job, lambda: rank in job.find_ranks()) or not until(job, events[kind]):
            return False
        end = time.monotonic() + self.delays[kind]
        return until(job, lambda: time.monotonic() >= end)
