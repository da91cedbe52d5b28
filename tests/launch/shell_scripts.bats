#!/usr/bin/env bats
# All shell scripts of the repository: what shellcheck says, and what launch/setup installs.
# shellcheck disable=SC2154  # root, fakes and what `run` sets
load fakes.bash

# Every file but those that git ignores, by its name or first line.
shell_scripts() {
  local file first shebang='^#!.*[/ ](ba|da)?sh( |$)|^#!.*[/ ]bats( |$)'
  find "$root" \( -name .git -o -name 'build*' -o -name runs -o -name data -o -name .deps \) -prune -o -type f -print |
    while read -r file; do
      first=''
      IFS= read -r first 2>/dev/null <"$file" || true
      [[ $file != *.sh && $file != *.bash && ! $first =~ $shebang ]] || echo "$file"
    done
}

@test "shellcheck has nothing to say about any shell script" {
  local scripts
  mapfile -t scripts < <(shell_scripts)
  for script in launch/setup launch/mpirun launch/quickstart launch/keep_running launch/restarts.sh launch/cluster/mpirun_hosts launch/cluster/common.sh \
    launch/cluster/pretrain.sbatch launch/cluster/submit tests/run .ci/run tests/launch/shell_scripts.bats; do
    has " ${scripts[*]} " " $root/$script "
  done
  cd "$root"
  shellcheck --external-sources "${scripts[@]}"
}

@test "shellcheck finds faults" {
  # shellcheck disable=SC2016  # text for a script
  printf '#!/bin/bash\nrm $1\n' >"$BATS_TEST_TMPDIR/script"
  run ! shellcheck "$BATS_TEST_TMPDIR/script"
  has "$output" SC2086
}

@test "what only tests need is installed only for them" {
  make_fakes id dpkg-query
  # Not root and no package there: launch/setup names those that it would install, and stops.
  export FAKE_id_OUTPUT=1000 HYPERMOE_CACHE=$BATS_TEST_TMPDIR/cache
  run -1 "$root/launch/setup" --only-packages --with-tests
  for package in bats gnuplot-nox iproute2 shellcheck g++; do
    has "$output " " $package "
  done
  run -1 "$root/launch/setup" --only-packages
  has "$output " ' g++ '
  for package in bats gnuplot-nox iproute2 shellcheck; do
    lacks "$output " " $package "
  done
}
