"""What a campaign of kill_and_resume.py comes to, and what of it must not be."""

import math
import statistics

SHARE_IN_SAVE = 0.3  # of the kills, at least
TEXT_BYTES = 44000
STEPS_OF_EPOCH = (int(0.9 * TEXT_BYTES) // 32 - 1) // 8  # rows of 32 tokens, 8 a step: small.textproto


def saves_wanted(arguments):
    """Kills inside saves; none where kills come as they may."""
    return 0 if arguments.mean_seconds else math.ceil(SHARE_IN_SAVE * arguments.kills)


def saves(rows):
    return sum(row["phase"] == "save" for row in rows)


def resumes_in_one_epoch(rows):
    """The most resumes that one run had within one epoch of its data."""
    epochs = [(row["run"], row["resumed_from"] // STEPS_OF_EPOCH) for row in rows if row["resumed_from"] > 0]
    return max((epochs.count(epoch) for epoch in epochs), default=0)


def growth(usage, steps):
    """Of the reference run, between the two halves of what comes after step 1,000 (of a shorter run, after its middle)."""
    late = [sample for sample in usage if sample[0] >= min(1000, steps // 2)]
    first, second = late[:len(late) // 2], late[len(late) // 2:]
    if not first:
        return {}
    files = [statistics.median_high(files for _, _, files in half) for half in (first, second)]
    memory = [max(kib for _, kib, _ in half) for half in (first, second)]
    return {"resident_growth": round(memory[1] / memory[0] - 1, 4),
            # Medians: there are more while a checkpoint is written, fewer when ranks end.
            "open_files_growth": files[1] - files[0]}


def collect(campaign):
    rows = campaign.rows
    phases = [row["phase"] for row in rows]
    return {
        "seed": campaign.arguments.seed,
        "kills": len(rows),
        "failures": len(campaign.wrong),
        "phases": {phase: phases.count(phase) for phase in sorted(set(phases))},
        "runs": campaign.runs,
        "resumes_in_one_epoch": resumes_in_one_epoch(rows),
        "slowest_end_seconds": max((row["ended_after"] for row in rows), default=0),
        "clean_seconds": round(campaign.clean_seconds, 2),
        "start_seconds": round(campaign.start_seconds, 2),
        "milliseconds_a_step": round(1e3 * campaign.step_seconds, 2),
        "mean_seconds_between_kills": round(campaign.killed_seconds / max(1, len(rows)), 2),
        "steps_trained_again": sum(max(0, row["at_step"] - row["newest"]) for row in rows),
        "goodput": round(campaign.runs * campaign.clean_seconds / campaign.killed_seconds, 3),
        **growth(campaign.usage, campaign.arguments.steps),
    }


def judge(figures, arguments):
    """What is wrong with the figures: sentences."""
    wrong, phases = [], figures["phases"]
    if phases.get("save", 0) < saves_wanted(arguments):
        wrong.append(f"only {phases.get('save', 0)} kills hit a save")
    if arguments.kills >= 20 and not arguments.mean_seconds:
        if not phases.get("evaluation") or not phases.get("start") or figures["resumes_in_one_epoch"] < 3:
            wrong.append("no kill hit an evaluation, or a start, or no three resumes fell into one epoch")
    if figures["goodput"] < arguments.min_goodput:
        wrong.append(f"goodput {figures['goodput']}, wanted {arguments.min_goodput}")
    if figures.get("open_files_growth", 0) > 0:
        wrong.append("the reference run opens files that it does not close")
    # Shorter runs still meet their first full batch of everything.
    if arguments.steps >= 2000 and figures.get("resident_growth", 0) > 0.01:
        wrong.append(f"memory of the reference run grew by {figures['resident_growth']:.2%} after step 1,000")
    return wrong
