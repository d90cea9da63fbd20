#!/usr/bin/env bash
# A cluster of nodes on this machine, for tests and trials: each node is a network namespace with an
# address of its own on a common bridge, and a mount namespace with a /tmp and a /dev/shm of its own.
# All nodes see the machine's other files. Nothing of the machine's own network is touched. Root only.
#
#   scripts/cluster.sh up N [--rails R] [--share DIR]... [--shm SIZE]
#                                        makes node1 ... nodeN (2 to 32), prints their names
#   scripts/cluster.sh exec HOST [--user UID] -- COMMAND...
#   scripts/cluster.sh link HOST up|down [RAIL]
#                                        plugs or pulls the cable of a node, as the switch sees it
#   scripts/cluster.sh ps                lists what runs on the nodes
#   scripts/cluster.sh down              ends what runs on the nodes and removes them
#
#   --prefix NAME   (with each command) hosts are NAME1 ... NAMEn; several clusters do not meet
#   --rails R       network cards per node: eth0 with address 10.77.0.n, eth1 with 10.78.0.n
#   --share DIR     what is mounted below DIR later is seen by all nodes
#   --shm SIZE      size of each node's /dev/shm (default: as the kernel has it)
#
# A node's namespaces are /run/netns/HOST and /run/copper-cluster/HOST/mnt; names of hosts resolve
# on the nodes by a hosts file of their own, and no question leaves for a name server.
set -euo pipefail

state=/run/copper-cluster

die() {
  printf 'cluster.sh: %s\n' "$*" >&2
  exit 1
}

usage() {
  sed -n '2,23s/^# \{0,1\}//p' "$0"
  exit "$1"
}

prefix=node
rails=1
shares=()
shm=
user=
words=()
while [ $# -gt 0 ]; do
  case "$1" in
    --prefix) prefix=${2:?--prefix needs a name}; shift 2 ;;
    --rails) rails=${2:?--rails needs a number}; shift 2 ;;
    --share) shares+=("$(realpath -e "${2:?--share needs a directory}")"); shift 2 ;;
    --shm) shm=${2:?--shm needs a size}; shift 2 ;;
    --user) user=${2:?--user needs a number}; shift 2 ;;
    -h | --help) usage 0 ;;
    --) shift; break ;;
    -*) die "unknown option $1; see scripts/cluster.sh --help" ;;
    *) words+=("$1"); shift ;;
  esac
done
[[ $prefix =~ ^[a-z]([a-z0-9-]*[a-z-])?$ && ${#prefix} -le 24 ]] ||
  die "--prefix is a name of at most 24 small letters, digits and hyphens that ends with no digit"
[[ $rails =~ ^[1-4]$ ]] || die "--rails is a number from 1 to 4"
[ "$(id -u)" = 0 ] ||
  die "namespaces need root; run this as root, in a container with CAP_SYS_ADMIN or a virtual machine"
for tool in ip:iproute2 nsenter:util-linux unshare:util-linux; do
  command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is missing; install ${tool##*:}"
done

# The switch: a namespace with one bridge for each rail.
switch=$prefix-switch
cluster=$state/$prefix.cluster

address() { echo "10.$((77 + $1)).0.$2"; } # rail, node

make_switch() {
  ip netns add "$switch"
  local rail
  for ((rail = 0; rail < rails; rail++)); do
    ip -n "$switch" link add "rail$rail" type bridge
    ip -n "$switch" link set "rail$rail" up
  done
}

# Joins a node to the switch. Node n's cable of rail r is called r-n on the switch.
make_network() {
  local number=$1 host=$prefix$1 rail
  ip netns add "$host"
  ip netns exec "$host" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6' 2>/dev/null || true
  ip -n "$host" link set lo up
  for ((rail = 0; rail < rails; rail++)); do
    ip -n "$switch" link add "$rail-$number" type veth peer name "eth$rail" netns "$host"
    ip -n "$switch" link set "$rail-$number" master "rail$rail" up
    ip -n "$host" address add "$(address "$rail" "$number")/24" dev "eth$rail"
    ip -n "$host" link set "eth$rail" up
  done
}

# What a node's first process does in its fresh mount namespace; it then sleeps and keeps it alive.
# Arguments: the node's directory below $state, the host's name, the size of /dev/shm.
# shellcheck disable=SC2016
first_process='
  set -e
  hostname "$2"
  mount -t tmpfs -o mode=1777 copper-cluster /tmp
  mount -t tmpfs -o "mode=1777${3:+,size=$3}" copper-cluster /dev/shm
  mount --bind "$1/../$4.hosts" /etc/hosts
  mount --bind "$1/../$4.nsswitch" /etc/nsswitch.conf
  echo $$ >"$1/pid.new"
  mv "$1/pid.new" "$1/pid"
  exec sleep infinity
'

make_mounts() {
  local host=$prefix$1 directory=$state/$prefix$1
  mkdir "$directory"
  nsenter --net="/run/netns/$host" unshare --mount --propagation slave --uts \
    setsid sh -c "$first_process" first "$directory" "$host" "$shm" "$prefix" \
    </dev/null >"$directory/log" 2>&1 &
}

# Mounts of namespaces do not show in one another, so a link to the first process's own stands here.
name_mounts() {
  local host=$prefix$1 directory=$state/$prefix$1 tries pid
  for ((tries = 0; ; tries++)); do
    [ ! -e "$directory/pid" ] || break
    [ $tries -lt 500 ] || die "$host has no mount namespace: $(cat "$directory/log")"
    sleep 0.02
  done
  pid=$(<"$directory/pid")
  ln -s "/proc/$pid/ns/mnt" "$directory/mnt"
  ln -s "/proc/$pid/ns/uts" "$directory/uts"
}

write_names() {
  local number rail
  {
    echo "127.0.0.1 localhost"
    for ((number = 1; number <= $1; number++)); do
      for ((rail = 0; rail < rails; rail++)); do
        if [ $rail = 0 ]; then
          echo "$(address 0 "$number") $prefix$number"
        else
          echo "$(address "$rail" "$number") $prefix$number-eth$rail"
        fi
      done
    done
  } >"$state/$prefix.hosts"
  { grep -v '^hosts:' /etc/nsswitch.conf; echo "hosts: files"; } >"$state/$prefix.nsswitch"
}

up() {
  local count=$1 number share asked
  [[ $count =~ ^[0-9]+$ && $count -ge 2 && $count -le 32 ]] || die "a cluster has 2 to 32 nodes"
  [ -e /etc/nsswitch.conf ] || die "/etc/nsswitch.conf is missing, so names would be asked for outside"
  asked="$count nodes, $rails rails"
  mkdir -p "$state"
  if [ -e "$cluster" ]; then
    if [ "$(<"$cluster")" = "$asked" ]; then
      print_names "$count"
      return
    fi
    [ "$(<"$cluster")" = unfinished ] ||
      die "a cluster of $(<"$cluster") is up; run this first: scripts/cluster.sh down --prefix $prefix"
    down
  fi
  echo unfinished >"$cluster"
  write_names "$count"
  for share in ${shares[@]+"${shares[@]}"}; do
    mount --bind "$share" "$share"
    mount --make-shared "$share"
    echo "$share" >>"$state/$prefix.shares"
  done
  make_switch
  for ((number = 1; number <= count; number++)); do
    make_network "$number"
    make_mounts "$number"
  done
  for ((number = 1; number <= count; number++)); do
    name_mounts "$number"
  done
  echo "$asked" >"$cluster"
  print_names "$count"
}

print_names() {
  local number
  for ((number = 1; number <= $1; number++)); do
    echo "$prefix$number"
  done
}

# The hosts of this cluster, finished or not.
hosts() {
  local directory
  for directory in "$state/$prefix"[0-9]*/; do
    directory=$(basename "$directory")
    if [[ $directory =~ ^$prefix[0-9]+$ ]]; then
      echo "$directory"
    fi
  done
}

known() {
  [[ $1 =~ ^$prefix[0-9]+$ && -e $state/$1/mnt && -e /run/netns/$1 ]] ||
    die "there is no node $1; these are up: $(hosts | tr '\n' ' ')"
}

# Prints the ids of the processes on these network namespaces. Only who was started on a node is there.
processes() {
  local host inode line
  declare -A wanted=()
  for host in "$@"; do
    if inode=$(stat -L -c %i "/run/netns/$host" 2>/dev/null); then
      wanted[$inode]=$host
    fi
  done
  stat -L -c '%i %n' /proc/[0-9]*/ns/net 2>/dev/null | while read -r inode line; do
    if [ -n "${wanted[$inode]:-}" ]; then
      line=${line#/proc/}
      echo "${line%%/*} ${wanted[$inode]}"
    fi
  done || true
}

end_processes() {
  local signal round pid
  for signal in TERM KILL; do
    for ((round = 0; round < 30; round++)); do
      local left
      left=$(processes "$@" | cut -d' ' -f1)
      [ -n "$left" ] || return 0
      if [ $round = 0 ]; then
        for pid in $left; do
          kill -s "$signal" "$pid" 2>/dev/null || true
          # A stopped one has to go on to end.
          kill -s CONT "$pid" 2>/dev/null || true
        done
      fi
      sleep 0.1
    done
  done
  die "these processes on the nodes do not end: $left"
}

down() {
  local all host share
  mapfile -t all < <(hosts)
  if [ ${#all[@]} -gt 0 ]; then
    end_processes "${all[@]}"
  fi
  for host in ${all[@]+"${all[@]}"} "$switch"; do
    if [ -e "/run/netns/$host" ]; then
      ip netns delete "$host"
    fi
    rm -rf "${state:?}/$host"
  done
  if [ -e "$state/$prefix.shares" ]; then
    while read -r share; do
      umount -l "$share" 2>/dev/null || true
    done <"$state/$prefix.shares"
  fi
  rm -f "$state/$prefix".{hosts,nsswitch,shares,cluster}
  rmdir --ignore-fail-on-non-empty "$state" 2>/dev/null || true
}

run_on() {
  local host=$1 as=()
  shift
  known "$host"
  [ $# -gt 0 ] || die "exec needs a command: scripts/cluster.sh exec $host -- COMMAND"
  [ -z "$user" ] || as=(setpriv "--reuid=$user" "--regid=$user" --clear-groups --)
  exec nsenter --net="/run/netns/$host" --mount="$state/$host/mnt" --uts="$state/$host/uts" \
    --wdns="$PWD" -- ${as[@]+"${as[@]}"} "$@"
}

link() {
  known "$1"
  case "$2" in up | down) ;; *) die "a link is set up or down" ;; esac
  ip -n "$switch" link set "${3:-0}-${1#"$prefix"}" "$2"
}

list_processes() {
  local pid host
  mapfile -t all < <(hosts)
  processes ${all[@]+"${all[@]}"} | while read -r pid host; do
    printf '%s %s %s\n' "$host" "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
  done
}

case "${words[0]:-}" in
  up) [ ${#words[@]} = 2 ] || usage 1; up "${words[1]}" ;;
  exec) [ ${#words[@]} = 2 ] || usage 1; run_on "${words[1]}" "$@" ;;
  link) [ ${#words[@]} -ge 3 ] || usage 1; link "${words[@]:1}" ;;
  ps) list_processes ;;
  down) down ;;
  *) usage 1 ;;
esac
