# shellcheck shell=bash
# When a job that has ended is started again: what keep_running and cluster/pretrain.sbatch share. For sourcing.
# shellcheck disable=SC2034  # variables for them

# Starts in a row that may end without a new checkpoint before giving up: the first and three more.
max_fruitless=4

# run_dir_of COMMAND...: what its last --run_dir says, or nothing.
run_dir_of() {
  local word previous='' run_dir=''
  for word in "$@"; do
    [ "$previous" != --run_dir ] || run_dir=$word
    [[ $word != --run_dir=* ]] || run_dir=${word#*=}
    previous=$word
  done
  printf '%s\n' "$run_dir"
}

# newest_checkpoint RUN_DIR: something that every new one changes, also one of a lower step than another folder's (after a
# damaged one, or by request) and one of the same step; or nothing.
newest_checkpoint() {
  stat -c '%i %y' "$1/checkpoints/latest" 2>/dev/null && return
  { find "$1/checkpoints" -mindepth 1 -maxdepth 1 -type d -name 'step_*[0-9]' -printf '%f %i\n' 2>/dev/null || :; } |
    sort -V | tail -n 1
}

# What start_job counts, the signal that it was told to stop by, and the job that is running.
fruitless=0 asked='' child=''

# start_job RUN_DIR COMMAND...: runs it to its end; sets `code`. SIGUSR1 and SIGTERM are passed on as SIGUSR1, for SIGTERM
# leaves mpirun's ranks 0.9 s; a terminal's Ctrl-C reaches the job without help, but for bash, which has it ignored in the
# background. `asked` is then the signal's name. Counts in `fruitless` the starts in a row, this one included, that have not
# brought a new checkpoint.
start_job() {
  local checkpoint status
  checkpoint=$(newest_checkpoint "$1")
  trap 'asked=SIGINT again=1' INT
  trap 'asked=SIGUSR1 again=1; kill -s USR1 $child 2>/dev/null || :' USR1
  trap 'asked=SIGTERM again=1; kill -s USR1 $child 2>/dev/null || :' TERM
  env --default-signal=INT,QUIT "${@:2}" <&0 &
  child=$!
  [ -z "$asked" ] || kill -s USR1 "$child"
  code=127 again=1
  while [ -n "$again" ]; do # a signal interrupts the waiting
    again='' status=0
    wait "$child" || status=$?
    ((status == 127)) || code=$status # 127 also where the wait before it saw the end
  done
  child=''
  fruitless=$((fruitless + 1))
  [ "$(newest_checkpoint "$1")" = "$checkpoint" ] || fruitless=0
}

# may_restart RUN_DIR RESTARTS MAX: whether the job that has ended with `code` is to be started again, after RESTARTS of at
# most MAX times. Sets `verdict`, the reason.
may_restart() {
  case "$code" in
    75)
      verdict="stopped as asked"
      if [ -e "$1/stopped" ]; then
        verdict="stopped as $(head -c 200 "$1/stopped" | tr -d '[:cntrl:]') asked: not started again"
        return 1
      fi ;;
    71 | 72) verdict="exit code $code" ;;                   # another rank is gone, or hangs
    1) verdict="exit code 1, mpirun's for lost machines" ;; # and for what it cannot start
    0) verdict='exit code 0, done'; return 1 ;;
    *)
      verdict="exit code $code"
      ((code >= 128)) || { verdict+=": it would end so again (README.md, Exit codes)"; return 1; } ;;
  esac
  if ((fruitless >= max_fruitless)); then
    verdict+=": $fruitless starts in a row without a new checkpoint in $1/checkpoints, so not started again; find the cause above"
    return 1
  elif (($2 >= $3)); then
    verdict+=": started again $2 times, of at most $3"
    return 1
  fi
}
