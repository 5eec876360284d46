#!/bin/busybox sh
# First process of the emulated host: makes this machine's root of the one it is emulated on
# (read-only, changes kept in memory) and runs the job.
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /ro /rw /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

fail() {
    echo "lab: $*" >/dev/ttyS0
    leave
}
# The emulator ends when this port is written; its own status is of no interest.
leave() {
    sync
    printf '\020' | dd of=/dev/port bs=1 seek=$((0xf4)) count=1 2>/dev/null
    poweroff -f
}

for module in $(cat /modules/order); do
    insmod "/modules/$module.ko" || echo "lab: cannot insert $module" >/dev/ttyS0
done

nine='trans=virtio,version=9p2000.L,msize=1048576,cache=loose'
mount -t 9p -o "ro,$nine" lab-root /ro || fail 'no root share'
mount -t tmpfs -o size=90%,mode=755 tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work root /root || fail 'no overlay'

cd /root || fail 'no root'
mkdir -p proc sys dev run tmp
mount --move /proc proc
mount --move /sys sys
mount --move /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p dev/pts dev/shm run/lab run/lock
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t debugfs debugfs sys/kernel/debug
mount -t tracefs tracefs sys/kernel/tracing 2>/dev/null
mount -t cgroup2 cgroup2 sys/fs/cgroup
ln -sf /proc/self/fd dev/fd
ln -sf /proc/self/fd/0 dev/stdin
ln -sf /proc/self/fd/1 dev/stdout
ln -sf /proc/self/fd/2 dev/stderr
mount -t 9p -o 'trans=virtio,version=9p2000.L,msize=1048576' lab-run run/lab || fail 'no run share'
exec /bin/busybox switch_root /root /bin/sh /run/lab/host.sh 2>/dev/ttyS0
