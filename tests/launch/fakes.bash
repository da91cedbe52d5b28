# For the .bats files: a folder with the scripts' surroundings faked, and what to say about how they ended.
# shellcheck shell=bash disable=SC2034,SC2154  # variables for the .bats files, and those that `run` sets
bats_require_minimum_version 1.5.0
root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)

# make_fakes NAME...: puts fake programs first on the PATH, and starts in an empty folder.
make_fakes() {
  local name
  fakes=$BATS_TEST_TMPDIR/fakes
  mkdir -p "$fakes/bin" "$BATS_TEST_TMPDIR/work"
  for name in "$@"; do
    ln -s "$BATS_TEST_DIRNAME/fake_program.sh" "$fakes/bin/$name"
  done
  export PATH=$fakes/bin:$PATH FAKE_LOG=$BATS_TEST_TMPDIR/log
  # launch/mpirun then takes the mpirun of the PATH.
  export BUILD_DIR=$BATS_TEST_TMPDIR/no_build
  unset MPI_HOME "${!SLURM_@}" "${!HYPERMOE_@}" "${!OMP_@}" "${!MKL_@}" LD_LIBRARY_PATH LD_PRELOAD
  : >"$FAKE_LOG"
  cd "$BATS_TEST_TMPDIR/work" || return
}

same() { [ "$1" = "$2" ] || { printf 'got:    %s\nwanted: %s\n' "$1" "$2"; return 1; }; }
has() { [[ $1 = *"$2"* ]] || { printf 'got:    %s\nwanted: %s\n' "$1" "$2"; return 1; }; }
lacks() { [[ $1 != *"$2"* ]] || { printf 'got:      %s\nunwanted: %s\n' "$1" "$2"; return 1; }; }
log_is() { same "$(<"$FAKE_LOG")" "$1"; }

# refused TEXT COMMAND...: exit code 64, one line that holds TEXT, and none of the fakes was called.
refused() {
  local text=$1
  shift
  run -64 "$@"
  same "${#lines[@]}" 1
  has "$output" "error: "
  has "$output" "$text"
  log_is ''
}
