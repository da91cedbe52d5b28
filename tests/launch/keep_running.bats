#!/usr/bin/env bats
# launch/keep_running with jobs that only end, and a sleep that only notes how long.
# shellcheck disable=SC2154  # root, fakes and what `run` sets
load fakes.bash

setup() { make_fakes sleep; }

keep_running() { "$root/launch/keep_running" "$@"; }

# ends CODE...: a job that ends with these codes in turn, and then with 0; what it does before is in the file `before`.
ends() {
  printf '%s\n' "$@" >codes
  : >before
  cat >job <<'END'
#!/usr/bin/env bash
echo "job $*" >>"$FAKE_LOG"
. ./before
code=$(head -n 1 codes)
sed -i 1d codes
exit "${code:-0}"
END
  chmod +x job
}
starts() { grep -c '^job' "$FAKE_LOG"; }
pauses() { grep '^sleep' "$FAKE_LOG" | paste -sd ' '; }

@test "starts again on exit codes where that helps, with the same words" {
  ends 71 72 75 1 137 143
  # shellcheck disable=SC2016  # for the job
  echo 'mkdir -p "run/checkpoints/step_0000000$(grep -c job "$FAKE_LOG")"' >before
  run -0 keep_running -- ./job pretrain --run_dir run 'a b'
  same "$(starts)" 7
  same "$(sort -u "$FAKE_LOG")" 'job pretrain --run_dir run a b'
  has "$output" 'keep_running: exit code 71: start 2 of at most 101'
  has "$output" 'keep_running: exit code 0, done'
}

@test "never starts again on other exit codes" {
  for code in 0 2 64 65 70 74 78 126 127; do
    : >"$FAKE_LOG"
    ends "$code"
    run "-$code" keep_running -- ./job --run_dir run
    same "$(starts)" 1
  done
  run -127 keep_running -- ./no_such_job --run_dir run
}

@test "four starts in a row without a new checkpoint are the last, with pauses between them" {
  ends 71 71 71 71 71
  run -71 keep_running -- ./job --run_dir=run
  same "$(starts)" 4
  same "$(pauses)" 'sleep 10 sleep 20 sleep 30'
  has "$output" '4 starts in a row without a new checkpoint in run/checkpoints, so not started again'
}

@test "a new checkpoint, also of the same step, begins to count anew; a torn one does not" {
  ends 71 71 71 71 71 71 71 71 71
  cat >before <<'END'
mkdir -p run/checkpoints/step_00000009.tmp
case $(grep -c job "$FAKE_LOG") in
  3) mkdir run/checkpoints/step_00000004 ;;
  5) mkdir new; mv run/checkpoints/step_00000004 old; mv new run/checkpoints/step_00000004 ;;
esac
END
  run -71 keep_running -- ./job --run_dir run
  # The 5th saves; four follow it.
  same "$(starts)" 9
}

@test "a checkpoint of a lower step than another folder's is a new one too" {
  ends 71 71 71 71 71 71
  cat >before <<'END'
mkdir -p run/checkpoints/step_00000009
[ "$(grep -c job "$FAKE_LOG")" != 2 ] || { mkdir run/checkpoints/step_00000004; echo step_00000004 >run/checkpoints/latest; }
END
  run -71 keep_running -- ./job --run_dir run
  # The 2nd saves; four follow it.
  same "$(starts)" 6
}

@test "Ctrl-C reaches the job" {
  ends 0
  # shellcheck disable=SC2016  # for the job
  echo 'kill -s INT $$; echo ignored >>"$FAKE_LOG"' >before
  run keep_running -- ./job --run_dir run
  lacks "$(cat "$FAKE_LOG")" ignored
}

@test "--restarts bounds all starts" {
  ends 75 75 75 75
  run -75 keep_running --restarts 2 -- ./job --run_dir run
  same "$(starts)" 3
  has "$output" 'stopped as asked: started again 2 times, of at most 2'
  ends 75
  : >"$FAKE_LOG"
  run -75 keep_running --restarts 0 -- ./job --run_dir run
  same "$(starts)" 1
}

@test "a run that the user has stopped stays stopped" {
  ends 75
  echo 'mkdir -p given; echo "the file given/stop" >given/stopped' >before
  run -75 keep_running --run_dir given -- ./job
  same "$(starts)" 1
  has "$output" 'stopped as the file given/stop asked: not started again'
}

@test "SIGUSR1 and SIGTERM reach the job as SIGUSR1, and end the script with it" {
  for signal in USR1 TERM; do
    rm -f ready
    : >"$FAKE_LOG"
    ends 75
    echo 'trap "exit 75" USR1; : >ready; for i in {1..600}; do /bin/sleep 0.05; done' >before
    "$root/launch/keep_running" -- ./job --run_dir run 2>output &
    local script=$!
    until [ -e ready ]; do /bin/sleep 0.02; done
    kill -s "$signal" "$script"
    code=0
    wait "$script" || code=$?
    same "$code" 75
    same "$(starts)" 1
    has "$(<output)" "not started again after SIG$signal"
  done
}

@test "a signal ends a pause" {
  rm "$fakes/bin/sleep"
  # shellcheck disable=SC2016  # for the script that stands in for sleep
  printf '#!/bin/sh\n: >ready\nexec /bin/sleep 60\n' >"$fakes/bin/sleep"
  chmod +x "$fakes/bin/sleep"
  ends 71
  "$root/launch/keep_running" -- ./job --run_dir run 2>output &
  local script=$!
  until [ -e ready ]; do /bin/sleep 0.02; done
  kill -s TERM "$script"
  code=0
  SECONDS=0
  wait "$script" || code=$?
  same "$code" 71
  ((SECONDS < 30))
  same "$(starts)" 1
}

@test "a wrong command line is refused in one line" {
  refused 'no command to run' keep_running
  refused 'no command to run' keep_running --restarts 3 --
  refused "--restarts is 'x'" keep_running --restarts x -- ./job --run_dir run
  refused '--run_dir needs a value' keep_running --run_dir
  refused "unknown option './job'" keep_running ./job --run_dir run
  refused 'the command has no --run_dir' keep_running -- ./job
}
