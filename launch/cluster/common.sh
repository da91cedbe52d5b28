# shellcheck shell=bash
# What the scripts of this folder share: messages, checks, and where Open MPI is told to put ranks. For sourcing.

say() { printf '%s: %s\n' "${script_name:-$(basename "$0")}" "$*" >&2; }
# A wrong command line: the exit code of README.md.
die() { say "error: $*"; exit 64; }
print_help() { sed -n '2,/^set -euo/{/^set -euo/d;/^#SBATCH/d;s/^# \{0,1\}//;p}' "$1"; }
quoted() { printf '%q ' "${@:1:$#-1}"; printf '%q\n' "${!#}"; }

# check_count OPTION VALUE
check_count() {
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || die "$1 is '$2', expected a whole number from 1 to 999999"
}

# warn_of_split_experts RANKS_PER_NODE COMMAND...: where --set mesh.expert_parallel=E, the last one, makes groups of ranks
# that share experts reach over machines.
warn_of_split_experts() {
  local ranks=$1 degree='' word previous=''
  for word in "${@:2}"; do
    [ "$previous" != --set ] || word=--set=$word
    [[ $word != --set=mesh.expert_parallel=* ]] || degree=${word##*=}
    previous=$word
  done
  [[ $degree =~ ^[1-9][0-9]{0,5}$ ]] || return 0
  ((ranks % degree == 0)) || say "warning: mesh.expert_parallel=$degree does not divide the $ranks ranks of a node, so" \
    "ranks on different nodes share experts and their all-to-all crosses the network"
}

# placement RANKS RANKS_PER_NODE CORES_PER_RANK: sets the array `placement`. Checked with Open MPI 4.1.4: the ranks of a node
# are consecutive, and so are the cores of a rank; too few cores on a node are an error, not ranks that share them.
placement() {
  # shellcheck disable=SC2034  # for the caller
  placement=(-np "$1" --map-by "ppr:$2:node:PE=$3" --rank-by slot --bind-to core)
}

# Sets the array `forwarded`: mpirun's options that take along what is set here. It takes OMPI_MCA_* by itself.
forwarded_environment() {
  local name
  forwarded=(-x "OMP_NUM_THREADS=$threads_per_rank")
  while read -r name; do
    case "$name" in
      OMP_NUM_THREADS) ;;
      PATH | LD_LIBRARY_PATH | LD_PRELOAD | GLIBC_TUNABLES | OMP_* | GOMP_* | KMP_* | MKL_* | MALLOC_* | UCX_*)
        forwarded+=(-x "$name") ;;
    esac
  done < <(compgen -e)
}
