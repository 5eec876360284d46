# Second part of the emulated host, in its final root. @…@ are filled in by the lab.
busybox=@BUSYBOX@
export PATH=@PATH@
exec 2>/dev/ttyS0

leave() {
    $busybox sync
    printf '\020' | $busybox dd of=/dev/port bs=1 seek=$((0xf4)) count=1 2>/dev/null
    $busybox poweroff -f
}
trap leave EXIT

$busybox hostname lab
$busybox ip link set lo up
# Reading module indexes in an emulated machine is slow, so what networks and guests need is loaded
# by name at once; the kernel asks for anything else through the same program.
release=$($busybox uname -r)
$busybox mkdir -p /lib/modules
$busybox rm -rf "/lib/modules/$release"
$busybox ln -s @MODULES@ "/lib/modules/$release"
printf '#!@BUSYBOX@ sh\nexec @BUSYBOX@ modprobe "$@"\n' >/run/modprobe
$busybox chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
for module in $($busybox cat /run/lab/modules); do
    $busybox insmod "@INSMOD@/$module.ko"
done
for module in @EXTRA@; do
    $busybox insmod "$module"
done
for node in 'kvm 232' 'net/tun 200' 'vhost-net 238' 'fuse 229'; do
    set -- $node
    $busybox mkdir -p /dev/net
    [ -e "/dev/$1" ] || $busybox mknod "/dev/$1" c 10 "$2"
done
$busybox chmod 666 /dev/kvm /dev/net/tun

# The scratch disk: a filesystem with reflinks.
$busybox mkdir -p /mnt/lab-scratch
$busybox mount -t xfs /dev/vda /mnt/lab-scratch || echo 'lab: no scratch disk' >/dev/ttyS0
$busybox @COPY@

port() {
    for dir in /sys/class/virtio-ports/*; do
        [ "$($busybox cat "$dir/name" 2>/dev/null)" = "$1" ] && echo "/dev/${dir##*/}"
    done
}

if [ @TERMINAL@ = yes ]; then
    $busybox stty -F /dev/hvc0 @STTY@ 2>/dev/null
    $busybox setsid -c /bin/sh /run/lab/job.sh </dev/hvc0 >/dev/hvc0 2>&1
    status=$?
else
    # A port opens only once, but a job may open its /dev/stdout again: give it pipes.
    $busybox mkfifo /run/lab-out /run/lab-err
    $busybox cat /run/lab-out >"$(port lab.out)" &
    $busybox cat /run/lab-err >"$(port lab.err)" &
    /bin/sh /run/lab/job.sh </dev/null >/run/lab-out 2>/run/lab-err
    status=$?
    # A daemon the job left behind would hold the pipes open for ever.
    exec >/dev/null
    n=0
    while [ $n -lt 20 ] && $busybox pgrep -x cat >/dev/null; do
        n=$((n + 1))
        $busybox usleep 50000
    done
fi
echo "$status" >/run/lab/status
$busybox sync
