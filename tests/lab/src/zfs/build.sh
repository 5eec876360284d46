# Builds OpenZFS's modules for the kernel release $2 in the unpacked system $1, which has the compiler
# and headers of that kernel and the source of zfs-dkms. Runs in namespaces of its own.
set -eu
root=$1
release=$2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# The package's own scripts would make this link.
[ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
headers=/usr/src/linux-headers-$release
env -i PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/tmp chroot "$root" sh -euc '
    cd /usr/src/zfs-*
    ./configure --disable-dependency-tracking --with-config=kernel \
        --with-linux="$1" --with-linux-obj="$2"
    make -j"$(nproc)"
    strip --strip-debug module/spl.ko module/zfs.ko
' sh "${headers%-*}-common" "$headers"
