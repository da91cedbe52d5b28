#!/usr/bin/env bash
# Runs a command between two "hosts" on this machine: network and host name namespaces of their own, joined by a veth pair.
#
#   tests/launch/two_hosts.sh FOLDER COMMAND...
#
# COMMAND runs on the first host, host-a, 10.77.0.1. FOLDER/hosts is a hostfile of both with 2 slots each; Open MPI reaches
# host-b, 10.77.0.2, by this script itself in place of ssh, without the environment, as with ssh. Afterwards FOLDER/bytes
# holds the bytes that went from host-a over the veth. Nothing has a name outside, so nothing is left whatever ends the
# script; needs root. `two_hosts.sh --probe` tells whether the machine allows it.
set -euo pipefail
script=$(realpath "${BASH_SOURCE[0]}")

case "$1" in
  --probe)
    exec unshare --net --uts sh -c 'hostname host-a && ip link add name a type veth peer name b' ;;
  --inside)
    shift ;;
  10.77.0.2) # called by Open MPI: HOST COMMAND, for a shell
    shift
    exec nsenter --net --uts --target "$HYPERMOE_HOST_B" \
      env -i HOME="$HOME" PATH=/usr/local/bin:/usr/bin:/bin sh -c "cd / && $*" ;;
  *)
    exec unshare --net --uts "$script" --inside "$@" ;;
esac

folder=$1
shift
rm -f "$folder/ready"
hostname host-a
# shellcheck disable=SC2016  # for the inner shell
setpriv --pdeathsig KILL unshare --net --uts sh -c 'hostname host-b && echo >"$0" && exec sleep 300' "$folder/ready" &
export HYPERMOE_HOST_B=$!
trap 'kill "$HYPERMOE_HOST_B"' EXIT
until [ -e "$folder/ready" ]; do
  kill -0 "$HYPERMOE_HOST_B"
  sleep 0.02
done
ip link add name link-a type veth peer name link-b netns "$HYPERMOE_HOST_B"
ip address add 10.77.0.1/24 dev link-a
ip link set lo up
ip link set link-a up
nsenter --net --target "$HYPERMOE_HOST_B" \
  sh -c 'ip address add 10.77.0.2/24 dev link-b && ip link set lo up && ip link set link-b up'
printf '10.77.0.1 slots=2\n10.77.0.2 slots=2\n' >"$folder/hosts"

export OMPI_MCA_plm_rsh_agent=$script
status=0
"$@" || status=$?
# Not /sys/class/net: that shows the namespace that /sys was mounted in.
ip -json -statistics link show link-a | sed -n 's/.*"tx":{"bytes":\([0-9]*\).*/\1/p' >"$folder/bytes"
exit "$status"
