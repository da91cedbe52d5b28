#!/usr/bin/env bats
# launch/cluster/mpirun_hosts on two hosts, which are namespaces of this machine (two_hosts.sh), with the real mpirun and
# program. BUILD_DIR: the folder with hypermoe.
# shellcheck disable=SC2154  # root, fakes and what `run` sets
load fakes.bash

setup() {
  "$BATS_TEST_DIRNAME/two_hosts.sh" --probe || skip 'this machine allows no network namespaces: needs root'
  cd "$BATS_TEST_TMPDIR" || return
  hypermoe=${BUILD_DIR:-$root/build}/hypermoe
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  # Two hosts share the cores of one machine.
  export OMPI_MCA_mpi_yield_when_idle=1
}

# on_two_hosts [-CODE] COMMAND...: 4 ranks that end with CODE (0); sets `bytes`, what went over the wire one way.
on_two_hosts() {
  local code=0
  if [[ $1 = -* ]]; then
    code=${1#-}
    shift
  fi
  run --separate-stderr "$BATS_TEST_DIRNAME/two_hosts.sh" "$PWD" \
    "$root/launch/cluster/mpirun_hosts" --hostfile hosts --interface 10.77.0.0/24 -- "$@"
  ((status == code)) || { printf 'exit code %s\n%s\n' "$status" "$stderr"; return 1; }
  bytes=$(<bytes)
}

# pretrain RUN_DIR [OPTION...]: the words of a command that trains a few steps.
pretrain() {
  local run_dir=$1
  shift
  command=("$hypermoe" pretrain --config "$root/configs/debug.textproto" --run_dir "$run_dir" --set data.train=text
    --set train.steps=4 --set optimizer.warmup_steps=1 --set train.batch_size=32 --set runtime.threads=1 "$@")
}

# The losses of a run, to the last digit.
losses() { grep -o '"loss":[^,]*' "$1/metrics.jsonl"; }

@test "ranks fill one host before the next, in the same folder, with the same settings" {
  export MKL_DYNAMIC=false
  # shellcheck disable=SC2016  # for the shell of a rank
  on_two_hosts sh -c 'echo "$OMPI_COMM_WORLD_RANK $(hostname) $OMP_NUM_THREADS $MKL_DYNAMIC $PWD"'
  same "$(sort <<<"$output")" "0 host-a 1 false $PWD
1 host-a 1 false $PWD
2 host-b 1 false $PWD
3 host-b 1 false $PWD"
}

@test "training over the wire gives the losses of one machine, and expert groups inside a host keep their traffic there" {
  yes 'The quick brown fox jumps over the lazy dog.' | head -n 400 >text.txt
  "$hypermoe" prepare --input text.txt --tokenizer byte --output text

  pretrain one
  "$root/launch/mpirun" -np 4 "${command[@]}" >one.out
  pretrain two
  on_two_hosts "${command[@]}"
  has "$output" 'validation  loss '
  same "$(grep '^validation' <<<"$output")" "$(grep '^validation' one.out)"
  same "$(losses two)" "$(losses one)"
  [ "$(losses one | wc -l)" -ge 3 ]
  local over_hosts=$bytes
  ((over_hosts > 1000000)) || { echo "only $over_hosts bytes went over the wire"; false; }

  pretrain inside --set mesh.expert_parallel=2
  on_two_hosts "${command[@]}"
  lacks "$stderr" warning
  ((bytes < over_hosts / 2)) || { echo "$bytes bytes with expert groups inside a host, $over_hosts over hosts"; false; }
}

@test "an error on two hosts is one line and one exit code" {
  on_two_hosts -78 "$hypermoe" pretrain --config "$root/configs/debug.textproto" --run_dir run --set train.steps=1
  local errors
  errors=$(grep 'hypermoe: error:' <<<"$stderr")
  same "$(wc -l <<<"$errors")" 1
  has "$errors" 'optimizer.warmup_steps (20)'
}
