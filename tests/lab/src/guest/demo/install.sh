# Turns the unpacked packages in $1 into an installed system. Runs in namespaces of its own; $2 is
# the directory with the package files.
set -eu
root=$1
debs=$2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/debs"
mount --bind "$debs" "$root/debs"

# What maintainer scripts count on before the packages that bring it are configured.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
[ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
: >"$root/var/lib/dpkg/status"
: >"$root/var/lib/dpkg/available"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

in_root() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true chroot "$root" "$@"
}
in_root sh -c 'dpkg --force-depends --force-unsafe-io --install /debs/*.deb'
in_root dpkg --configure --pending
# Everything the packages asked for is there, or the closure was not one.
in_root dpkg --audit
in_root systemctl enable systemd-networkd.service ssh.service

rm "$root/usr/sbin/policy-rc.d" "$root/var/lib/dpkg/available"
rm -f "$root"/etc/ssh/ssh_host_*
umount "$root/debs"
rmdir "$root/debs"
