#!/bin/bash
# PID 1 of a guest. The kernel's command line hands over LAB_RUN (the lab's
# directory), LAB_BIN (its programs), LAB_NAME and LAB_INDEX (the guest's own).
# The machine's own tree is the root, read-only, through hostfs; an overlay
# over it takes every write, so that a guest cannot change the machine.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
trap 'echo "init failed at line $LINENO"; sync; echo o >/proc/sysrq-trigger; sleep 9' ERR

release=$(uname -r)
modules=/usr/lib/uml/modules/$release

enter_overlay() {
  mount -t proc proc /proc
  mount -t tmpfs -o mode=755 tmp /mnt
  # modprobe -d DIR wants DIR/lib/modules/<release>
  mkdir -p /mnt/up /mnt/work /mnt/root /mnt/kmod/lib/modules
  ln -s "$modules" "/mnt/kmod/lib/modules/$release"
  modprobe -d /mnt/kmod overlay
  mount -t overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work overlay /mnt/root
  cd /mnt/root
  mkdir -p proc sys dev run mnt tmp lib/modules
  mount -t proc proc proc
  mount -t sysfs sys sys
  mount -t devtmpfs dev dev
  mkdir -p dev/pts dev/shm
  mount -t devpts -o ptmxmode=666 devpts dev/pts
  mount -t tmpfs shm dev/shm
  mount -t tmpfs -o mode=755 run run
  mount -t tmpfs -o mode=1777 tmp tmp
  ln -sfn "$modules" "lib/modules/$release"
  # What the guest needs from the run's directory: binaries, and one writable
  # directory per guest for logs.
  mkdir -p run/lab/bin run/lab/share mnt/old
  mount --bind "$LAB_BIN" run/lab/bin
  mount -t hostfs -o "$LAB_RUN/$LAB_NAME" none run/lab/share
  pivot_root . mnt/old
  cd /
  umount -l /mnt/old
  mount --make-rshared /
}

# keep DIR: DIR starts empty, on the state disk where there is one, so that it
# survives a power cut as it would on a real machine.
keep() {
  mkdir -p "$state/$1" "$1"
  mount --bind "$state/$1" "$1"
}

mount_state() {
  state=/run/lab/state
  mkdir -p $state
  if [ "$LAB_STATE" = disk ]; then
    mount -o discard /dev/ubda $state
  else
    mount -t tmpfs state $state
  fi
  keep /var/lib/kubelet
  keep /var/lib/csi-ietd
  keep /var/lib/iscsi
  for d in nodes ifaces send_targets static isns fw slp; do keep /etc/iscsi/$d; done
}

name_machine() {
  echo "$LAB_NAME" >/proc/sys/kernel/hostname
  printf '%032x\n' "$((0xc51e7d00 + LAB_INDEX))" >/etc/machine-id
  # The same on every guest on purpose, as on cloned machines.
  echo "InitiatorName=iqn.1993-08.org.debian:01:cloned" >/etc/iscsi/initiatorname.iscsi
}

# vec0 is the storage network, vec1 the control network.
start_network() {
  ip link set lo up
  ip addr add "10.77.0.$((10 + LAB_INDEX))/24" dev vec0
  ip addr add "10.78.0.$((10 + LAB_INDEX))/24" dev vec1
  ip link set vec0 up
  ip link set vec1 up
}

start_services() {
  modprobe -a sd_mod iscsi_tcp sg
  /lib/systemd/systemd-udevd --daemon
  mkdir -p /run/lock/iscsi /sys/fs/cgroup
  mount -t cgroup2 none /sys/fs/cgroup
  echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
  iscsid -f >/run/lab/share/iscsid.log 2>&1 &
}

enter_overlay
mount_state
name_machine
start_network
start_services
/run/lab/bin/guest -listen "10.78.0.$((10 + LAB_INDEX)):7000" -announce "$LAB_ANNOUNCE" \
  -cgroups /sys/fs/cgroup >/run/lab/share/agent.log 2>&1 &
trap - ERR
set +e
while :; do wait; sleep 1; done
