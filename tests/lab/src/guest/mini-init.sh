#!/bin/busybox sh
# First and only process of the mini guest. What it prints for tests starts with "MINI ".
#
# Parameters on the kernel command line:
#   mini.ip=ADDRESS/BITS,GATEWAY  address of eth0 (default: 10.N.0.2/24 for MAC 02:00:00:00:00:0N)
#   mini.run=BASE64               a script to run; prints "MINI exit STATUS"
#   mini.then=poweroff|reboot|panic|shell    what comes after (default: shell)
# The shell reads lines from the console, runs each and prints "MINI exit STATUS".
export PATH=/bin HOME=/ TERM=dumb
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
read -r uptime _ </proc/uptime
echo "MINI init $uptime"

for module in $(cat /modules/boot); do
    insmod "/modules/$module.ko" || echo "MINI cannot insert $module"
done

# load NAME: inserts a module that is not needed to boot.
load() {
    for module in $(cat "/modules/$1.needs"); do
        [ -d "/sys/module/$module" ] || insmod "/modules/$module.ko" || return 1
    done
}

ip=
run=
action=shell
for word in $(cat /proc/cmdline); do
    case $word in
        mini.ip=*) ip=${word#mini.ip=} ;;
        mini.run=*) run=${word#mini.run=} ;;
        mini.then=*) action=${word#mini.then=} ;;
    esac
done

ip link set lo up
if [ -e /sys/class/net/eth0/address ]; then
    read -r mac </sys/class/net/eth0/address
    case $mac in
        02:00:00:00:00:0[1-9]) n=${mac##*:0}; : "${ip:=10.$n.0.2/24,10.$n.0.1}" ;;
    esac
    ip link set eth0 up
    if [ -n "$ip" ]; then
        ip addr add "${ip%,*}" dev eth0
        ip route add default via "${ip#*,}"
        echo "MINI ip ${ip%,*}"
    fi
fi

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
acpid -f -c /etc/acpi -l /dev/null >/dev/console 2>&1 &
read -r _ kib _ </proc/meminfo
echo "MINI cpus $(nproc) memory_kib $kib"
echo "MINI ready"

if [ -n "$run" ]; then
    echo "$run" | base64 -d >/run/script
    (. /run/script)
    echo "MINI exit $?"
fi

case $action in
    poweroff) sync; echo "MINI poweroff"; poweroff -f ;;
    reboot) sync; echo "MINI reboot"; reboot -f ;;
    panic) echo "MINI panic"; echo c >/proc/sysrq-trigger ;;
esac

stty -echo 2>/dev/null
while read -r line; do
    eval "$line"
    echo "MINI exit $?"
done
# No console to read from: the guest stays until something ends it.
while :; do
    sleep 3600
done
