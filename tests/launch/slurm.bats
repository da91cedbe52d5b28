#!/usr/bin/env bats
# launch/cluster/submit and pretrain.sbatch with a Slurm and an mpirun that only note their arguments.
# shellcheck disable=SC2154  # root, fakes and what `run` sets
load fakes.bash

setup() {
  make_fakes sbatch srun scontrol squeue scancel mpirun
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  mkdir build
  ln -s "$BATS_TEST_DIRNAME/fake_program.sh" build/hypermoe
  : >c.textproto
}

submit() { "$root/launch/cluster/submit" "$@"; }

# job [NAME=VALUE...] COMMAND...: runs pretrain.sbatch as job 7 on two nodes, from a copy as Slurm does.
job() {
  local settings=()
  while [[ $1 =~ ^[A-Za-z_]+= ]]; do
    settings+=("$1")
    shift
  done
  cp "$root/launch/cluster/pretrain.sbatch" "$BATS_TEST_TMPDIR/slurm_script"
  env SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=2 SLURM_JOB_NODELIST='n[1-2]' SLURM_NTASKS_PER_NODE=3 SLURM_CPUS_PER_TASK=4 \
    SLURM_SUBMIT_DIR="$root" FAKE_squeue_OUTPUT=RUNNING "${settings[@]}" "$BATS_TEST_TMPDIR/slurm_script" "$@"
}
# Calls of Slurm's programs by the job, on one line.
calls() { grep -v '^mpirun' "$FAKE_LOG" | paste -sd ' '; }

# --- submit ----------------------------------------------------------------------------------------------------------------
@test "submit asks Slurm for nodes, ranks and cores, and passes other options on" {
  run -0 submit --nodes 4 --ranks_per_node 8 --threads_per_rank 16 --time=1:00 -p cpu -- \
    build/hypermoe pretrain --config c.textproto --run_dir 'a b'
  local options="--nodes=4 --ntasks-per-node=8 --cpus-per-task=16 --export=ALL --time=1:00 -p cpu"
  log_is "sbatch $options $root/launch/cluster/pretrain.sbatch build/hypermoe pretrain --config c.textproto --run_dir a\\ b"
  has "$output" "submit: $(<"$FAKE_LOG")"
}

@test "submit tells the job where launch/ is and how often it may be requeued" {
  rm "$fakes/bin/sbatch"
  # shellcheck disable=SC2016  # for the script that stands in for sbatch
  printf '#!/bin/sh\necho "$HYPERMOE_LAUNCH $HYPERMOE_MAX_REQUEUES"\n' >"$fakes/bin/sbatch"
  chmod +x "$fakes/bin/sbatch"
  run -0 --separate-stderr submit --nodes 1 --ranks_per_node 1 -- build/hypermoe pretrain
  same "$output" "$root/launch 10"
  run -0 --separate-stderr submit --nodes 1 --ranks_per_node 1 --max_requeues 0 -- build/hypermoe pretrain
  same "$output" "$root/launch 0"
}

@test "a chain is an array of which one job runs at a time" {
  run -0 submit --nodes 1 --ranks_per_node 1 --chain 5 -- build/hypermoe pretrain
  has "$(<"$FAKE_LOG")" ' --array=1-5%1 '
}

@test "submit ends as sbatch does; without sbatch it says so" {
  FAKE_sbatch_EXIT=3 run -3 submit --nodes 1 --ranks_per_node 1 -- build/hypermoe pretrain
  rm "$fakes/bin/sbatch"
  command -v sbatch >/dev/null && skip 'this machine has an sbatch of its own'
  run -1 submit --nodes 1 --ranks_per_node 1 -- build/hypermoe pretrain
  has "$output" 'no sbatch here'
}

@test "submit --dry_run prints the command and submits nothing" {
  run -0 --separate-stderr submit --dry_run --nodes 1 --ranks_per_node 1 -- build/hypermoe pretrain
  same "${#lines[@]}" 1
  has "$output" "env HYPERMOE_LAUNCH=$root/launch HYPERMOE_MAX_REQUEUES=10 sbatch --nodes=1 "
  same "$stderr" ''
  log_is ''
}

@test "submit warns of expert groups that reach over nodes" {
  run -0 submit --nodes 2 --ranks_per_node 3 -- build/hypermoe pretrain --set mesh.expert_parallel=2
  has "$output" 'warning: mesh.expert_parallel=2 does not divide the 3 ranks'
  run -0 submit --nodes 2 --ranks_per_node 4 -- build/hypermoe pretrain --set mesh.expert_parallel=2
  lacks "$output" warning
}

@test "submit refuses a wrong command line in one line" {
  refused "--nodes is ''" submit --ranks_per_node 1 -- build/hypermoe
  refused "--nodes is '0'" submit --nodes 0 --ranks_per_node 1 -- build/hypermoe
  refused "--ranks_per_node is ''" submit --nodes 1 -- build/hypermoe
  refused "--threads_per_rank is 'x'" submit --nodes 1 --ranks_per_node 1 --threads_per_rank x -- build/hypermoe
  refused "--chain is '0'" submit --nodes 1 --ranks_per_node 1 --chain 0 -- build/hypermoe
  refused "--max_requeues is '-1'" submit --nodes 1 --ranks_per_node 1 --max_requeues -1 -- build/hypermoe
  refused '--nodes needs a value' submit --nodes
  refused 'no command to run' submit --nodes 1 --ranks_per_node 1
  refused 'no command to run' submit --nodes 1 --ranks_per_node 1 build/hypermoe pretrain
  refused 'build/none is not a program' submit --nodes 1 --ranks_per_node 1 -- build/none
  for option in '--config none' --config=none; do
    # shellcheck disable=SC2086  # one or two words
    refused 'the configuration none cannot be read' submit --nodes 1 --ranks_per_node 1 -- build/hypermoe $option
  done
}

# --- pretrain.sbatch -------------------------------------------------------------------------------------------------------
@test "the job starts mpirun with the same placement as mpirun_hosts" {
  run -0 job build/hypermoe pretrain --run_dir 'a b'
  local placed="-np 6 --map-by ppr:3:node:PE=4 --rank-by slot --bind-to core -x OMP_NUM_THREADS=4 -x PATH"
  log_is "mpirun $placed --wdir $PWD build/hypermoe pretrain --run_dir a\\ b"
  has "$output" 'pretrain.sbatch: start 1 of job 7 on n[1-2]: '
}

@test "the job ends with the exit code of the program" {
  for code in 0 1 64 65 70 71 74 75 78 137; do
    run "-$code" job "FAKE_mpirun_EXIT=$code" x
  done
}

@test "exit codes that may end otherwise another time requeue the job, no others do" {
  for code in 1 71 72 75 137 143; do
    : >"$FAKE_LOG"
    run "-$code" job "FAKE_mpirun_EXIT=$code" SLURM_RESTART_COUNT=9 x
    same "$(calls)" 'squeue --noheader --jobs=7 --format=%T scontrol requeue 7'
    has "$output" ': requeued, 10 of at most 10 times'
  done
  : >"$FAKE_LOG"
  for code in 0 64 65 70 74 78 127; do
    run "-$code" job "FAKE_mpirun_EXIT=$code" x
    same "$(calls)" ''
  done
}

@test "the number of requeues is bounded" {
  run -75 job FAKE_mpirun_EXIT=75 SLURM_RESTART_COUNT=10 x
  same "$(calls)" ''
  has "$output" 'started again 10 times, of at most 10'
  run -75 job FAKE_mpirun_EXIT=75 HYPERMOE_MAX_REQUEUES=0 x
  same "$(calls)" ''
  run -75 job FAKE_mpirun_EXIT=75 HYPERMOE_MAX_REQUEUES=12 SLURM_RESTART_COUNT=11 x
  has "$(calls)" 'scontrol requeue 7'
}

@test "starts without a new checkpoint are counted over requeues, and four in a row are the last" {
  for _ in 1 2 3; do
    : >"$FAKE_LOG"
    run -71 job FAKE_mpirun_EXIT=71 x --run_dir run
    has "$(calls)" 'scontrol requeue 7'
  done
  # One that saves, in a folder of its own or again in that of its step, begins to count anew.
  FAKE_mpirun_EVAL='mkdir -p run/checkpoints/step_00000004' run -71 job FAKE_mpirun_EXIT=71 x --run_dir run
  has "$output" 'requeued'
  FAKE_mpirun_EVAL='mkdir new; mv -T run/checkpoints/step_00000004 old; mv new run/checkpoints/step_00000004' \
    run -71 job FAKE_mpirun_EXIT=71 x --run_dir run
  for _ in 1 2 3; do
    run -71 job FAKE_mpirun_EXIT=71 x --run_dir run
    has "$output" 'requeued'
  done
  : >"$FAKE_LOG"
  run -71 job FAKE_mpirun_EXIT=71 x --run_dir run
  has "$output" '4 starts in a row without a new checkpoint in run/checkpoints'
  same "$(calls)" ''
  # Another job has not failed yet.
  run -71 job SLURM_JOB_ID=8 FAKE_mpirun_EXIT=71 x --run_dir run
  has "$output" 'requeued'
}

@test "a job that was cancelled or timed out does not come back" {
  for state in CANCELLED COMPLETING TIMEOUT ''; do
    : >"$FAKE_LOG"
    run -75 job FAKE_mpirun_EXIT=75 "FAKE_squeue_OUTPUT=$state" x
    same "$(calls)" 'squeue --noheader --jobs=7 --format=%T'
  done
}

@test "a job that the user has stopped is not requeued" {
  FAKE_mpirun_EVAL='mkdir run; echo "the file run/stop" >run/stopped' run -75 job FAKE_mpirun_EXIT=75 x --run_dir run
  same "$(calls)" ''
  has "$output" 'stopped as the file run/stop asked: not started again'
  # In an array there is nothing to go on with.
  run -75 job SLURM_ARRAY_JOB_ID=5 FAKE_mpirun_EXIT=75 x --run_dir run
  same "$(calls)" 'scancel --state=PENDING 5'
}

@test "SIGUSR1, with which Slurm announces the end, reaches mpirun, and the job is requeued" {
  # shellcheck disable=SC2016  # for the program that stands in for mpirun
  export FAKE_mpirun_EVAL='trap "echo saved >&2; exit 75" USR1; : >ready; for i in {1..600}; do sleep 0.05; done'
  job x --run_dir run 2>output &
  local script=$!
  until [ -e ready ]; do sleep 0.02; done
  kill -s USR1 "$(pgrep -P "$script")"
  code=0
  wait "$script" || code=$?
  same "$code" 75
  has "$(<output)" saved
  has "$(calls)" 'scontrol requeue 7'
}

@test "a failing scontrol is said, and the exit code stays" {
  run -75 job FAKE_mpirun_EXIT=75 FAKE_scontrol_EXIT=1 x
  has "$output" 'scontrol could not requeue the job'
}

@test "a job of an array leaves going on to the next one, and cancels the rest where none is needed" {
  for code in 71 72 75 1 137 143; do
    run "-$code" job SLURM_ARRAY_JOB_ID=5 "FAKE_mpirun_EXIT=$code" x
    same "$(calls)" ''
  done
  for code in 0 64 65 70 74 78; do
    : >"$FAKE_LOG"
    run "-$code" job SLURM_ARRAY_JOB_ID=5 "FAKE_mpirun_EXIT=$code" x
    same "$(calls)" 'scancel --state=PENDING 5'
  done
}

@test "a job that was submitted in a wrong way says how to do it" {
  refused 'not inside a Slurm job' env SLURM_SUBMIT_DIR="$root" "$root/launch/cluster/pretrain.sbatch" x
  refused 'give sbatch --ntasks-per-node' job SLURM_NTASKS_PER_NODE= x
  refused "HYPERMOE_MAX_REQUEUES is 'many'" job HYPERMOE_MAX_REQUEUES=many x
  refused "--ntasks-per-node is '3(x2)'" job 'SLURM_NTASKS_PER_NODE=3(x2)' x
  refused 'no command to run' job SLURM_JOB_ID=7
  refused 'submit by launch/cluster/submit' job "SLURM_SUBMIT_DIR=$PWD" x
  run -0 job "SLURM_SUBMIT_DIR=$PWD" "HYPERMOE_LAUNCH=$root/launch" x
}

@test "Slurm finds its options at the head of the script" {
  # It stops looking at the first line that is a command.
  # shellcheck disable=SC2016  # for sed
  run -0 sed '/^[^#]/,$d' "$root/launch/cluster/pretrain.sbatch"
  for option in --job-name=hypermoe --requeue --open-mode=append --threads-per-core=1 --signal=B:USR1@120; do
    has "$output" "#SBATCH $option"
  done
}
