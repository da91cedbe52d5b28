#!/usr/bin/env bash
# Stands in for sbatch, srun, scontrol, squeue, scancel, mpirun, sleep, id and dpkg-query under a link of that name: appends its
# name and arguments, quoted on one line, to $FAKE_LOG, does $FAKE_name_EVAL, prints $FAKE_name_OUTPUT and ends with
# $FAKE_name_EXIT.
name=$(basename "$0")
if [ "$name" = mpirun ] && [ "$*" = --version ]; then
  echo 'mpirun (Open MPI) 4.1.4'
  exit 0
fi
{
  printf '%s' "$name"
  (($# == 0)) || printf ' %q' "$@"
  echo
} >>"$FAKE_LOG"
commands=FAKE_${name//-/_}_EVAL output=FAKE_${name//-/_}_OUTPUT code=FAKE_${name//-/_}_EXIT
[ -z "${!commands:-}" ] || eval "${!commands}"
[ -z "${!output:-}" ] || printf '%s\n' "${!output}"
exit "${!code:-0}"
