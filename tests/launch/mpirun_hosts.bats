#!/usr/bin/env bats
# launch/cluster/mpirun_hosts with an mpirun that only notes its arguments.
# shellcheck disable=SC2154  # root, fakes and what `run` sets
load fakes.bash

setup() {
  make_fakes mpirun
  # As root, launch/mpirun says so in a line.
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  printf 'a slots=4\nb slots=4\nc slots=4\n' >hosts
}

hosts() { "$root/launch/cluster/mpirun_hosts" --hostfile hosts "$@"; }
# with_hosts TEXT ARGUMENTS...: the same with a hostfile of TEXT, for printf.
with_hosts() {
  # shellcheck disable=SC2059  # the text is a format
  printf "$1" >hosts
  hosts "${@:2}"
}

@test "ranks are placed node by node, each bound to cores of its own" {
  run -0 hosts --ranks_per_node 2 --threads_per_rank 2 -- build/hypermoe pretrain --config c --run_dir 'my "runs"'
  local placed="-np 6 --map-by ppr:2:node:PE=2 --rank-by slot --bind-to core -x OMP_NUM_THREADS=2 -x PATH"
  log_is "mpirun --hostfile $PWD/hosts $placed --wdir $PWD build/hypermoe pretrain --config c --run_dir my\\ \\\"runs\\\""
  # The line that it prints is that command.
  same "$output" "mpirun_hosts: $root/launch/$(<"$FAKE_LOG")"
}

@test "ranks come from the slots: as many as have --threads_per_rank of them" {
  run -0 hosts -- x
  has "$(<"$FAKE_LOG")" "-np 12 --map-by ppr:4:node:PE=1 "
  run -0 hosts --threads_per_rank 3 -- x
  has "$(tail -n 1 "$FAKE_LOG")" "-np 3 --map-by ppr:1:node:PE=3 "
}

@test "a hostfile may have comments, blanks, a user, max_slots, line ends of Windows, and no last line end" {
  run -0 with_hosts '# all\n\n  me@a.b-c  slots = 2 max_slots= 4 # first\nfe80::1 slots =2\r\n10.0.0.3\tslots=2' -- x
  has "$(<"$FAKE_LOG")" "-np 6 --map-by ppr:2:node:PE=1 "
  run -0 with_hosts 'a\nb\n' --ranks_per_node 3 -- x
  has "$(tail -n 1 "$FAKE_LOG")" "-np 6 --map-by ppr:3:node:PE=1 "
}

@test "an interface is for MPI's messages and for Open MPI's own" {
  run -0 hosts --interface eth1,10.0.0.0/8 -- x
  has "$(<"$FAKE_LOG")" " --mca btl_tcp_if_include eth1\\,10.0.0.0/8 --mca oob_tcp_if_include eth1\\,10.0.0.0/8 "
  run -0 hosts -- x
  lacks "$(tail -n 1 "$FAKE_LOG")" if_include
}

@test "settings of the libraries go along, others stay" {
  export LD_LIBRARY_PATH=/l OMP_SCHEDULE=static OMP_NUM_THREADS=7 MKL_DYNAMIC=false UCX_TLS=tcp PASSWORD=secret
  run -0 hosts -- x
  has "$(<"$FAKE_LOG")" " -x OMP_NUM_THREADS=1 "
  for name in LD_LIBRARY_PATH OMP_SCHEDULE MKL_DYNAMIC UCX_TLS PATH; do
    has "$(<"$FAKE_LOG")" " -x $name "
  done
  lacks "$(<"$FAKE_LOG")" PASSWORD
  lacks "$(<"$FAKE_LOG")" "-x OMP_NUM_THREADS "
}

@test "MPI_HOME is the MPI on every machine" {
  PATH=${PATH#*:} MPI_HOME=$fakes run -0 hosts -- x
  has "$(<"$FAKE_LOG")" "mpirun --prefix $fakes --hostfile "
}

@test "the exit code is the job's" {
  for code in 0 65 75; do
    FAKE_mpirun_EXIT=$code run "-$code" hosts -- x
  done
}

@test "--dry_run prints the command and runs nothing" {
  run -0 --separate-stderr hosts --dry_run --ranks_per_node 1 -- build/hypermoe env
  has "$output" "/launch/mpirun --hostfile $PWD/hosts -np 3 "
  same "${#lines[@]}" 1
  same "$stderr" ''
  log_is ''
  eval "$output"
  has "$(<"$FAKE_LOG")" " build/hypermoe env"
}

@test "expert groups that reach over nodes are warned of" {
  for set in '--set mesh.expert_parallel=3' --set=mesh.expert_parallel=8 \
    '--set mesh.expert_parallel=4 --set mesh.expert_parallel=3'; do
    # shellcheck disable=SC2086  # two words
    run -0 hosts -- x $set
    has "$output" "warning: mesh.expert_parallel=${set##*=} does not divide the 4 ranks of a node"
  done
  for set in '' '--set mesh.expert_parallel=2' '--set mesh.expert_parallel=4' '--set mesh.expert_parallel=0' \
    '--set train.steps=3' '--set mesh.expert_parallel=3 --set mesh.expert_parallel=4'; do
    # shellcheck disable=SC2086  # two words or none
    run -0 hosts -- x $set
    lacks "$output" warning
  done
}

@test "a wrong command line is refused in one line" {
  refused 'give --hostfile' "$root/launch/cluster/mpirun_hosts" -- x
  refused 'no command to run' hosts
  refused 'no command to run' hosts --
  refused "unknown option '--rank_per_node'" hosts --rank_per_node 2 -- x
  refused "unknown option 'build/hypermoe'" hosts build/hypermoe
  refused '--interface needs a value' hosts --interface
  refused "--interface is 'eth0 eth1'" hosts --interface 'eth0 eth1' -- x
  for count in 0 -1 two 1.5 '' 09 1000000; do
    refused "--threads_per_rank is '$count'" hosts --threads_per_rank "$count" -- x
  done
  refused "--ranks_per_node is '0'" hosts --ranks_per_node 0 -- x
}

@test "a hostfile that cannot be used is refused in one line that names it" {
  refused 'hostfile missing does not exist' "$root/launch/cluster/mpirun_hosts" --hostfile missing -- x
  refused 'hostfile . does not exist' "$root/launch/cluster/mpirun_hosts" --hostfile . -- x
  refused 'hostfile hosts names no machine' with_hosts '' -- x
  refused 'hostfile hosts names no machine' with_hosts '# a slots=4\n\n' -- x
  refused "hosts:2: 'slots=' after b" with_hosts 'a slots=2\nb slots=\n' -- x
  refused "hosts:1: 'slots=0' after a" with_hosts 'a slots=0\n' -- x
  refused "hosts:1: 'slots=-2' after a" with_hosts 'a slots=-2\n' -- x
  refused "hosts:1: 'slots=two' after a" with_hosts 'a slots=two\n' -- x
  refused "hosts:1: 'slot=2' after a" with_hosts 'a slot=2\n' -- x
  refused "hosts:1: 'b' after a" with_hosts 'a b\n' -- x
  refused "hosts:1: 'slots=4' is not the name of a machine" with_hosts 'slots=4\n' -- x
  refused 'hosts:3: a is on line 1 already' with_hosts 'a slots=2\nb slots=2\na slots=2\n' -- x
  refused 'hosts:2: a is on line 1 already' with_hosts 'a slots=2\nme@a slots=2\n' -- x
}

@test "ranks that do not fit the slots are refused in one line" {
  refused 'b has 2 slots in hosts, fewer than the 3 ranks' with_hosts 'a slots=4\nb slots=2\n' --ranks_per_node 3 -- x
  refused 'gives 4 slots for a and 2 for b' with_hosts 'a slots=4\nb slots=2\n' -- x
  refused 'gives no slots for b' with_hosts 'a slots=4\nb\n' -- x
  refused '--threads_per_rank 5 is more than the 4 slots of a' with_hosts 'a slots=4\n' --threads_per_rank 5 -- x
}

@test "--help shows every option" {
  run -0 "$root/launch/cluster/mpirun_hosts" --help
  for option in --hostfile --ranks_per_node --threads_per_rank --interface --dry_run; do
    has "$output" "  $option "
  done
  lacks "$output" 'set -euo'
}
