#!/bin/busybox sh
# Init of the demo guest's initrd: puts the writable disk (vdb) over the read-only image (vda) and
# hands over to the distribution's init.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/boot); do
    insmod "/modules/$module.ko"
done

stuck() {
    echo "initrd: $*"
    exec sh
}

mkdir -p /image /data /root
mount -t squashfs -o ro /dev/vda /image || stuck 'cannot mount the image (/dev/vda)'
if [ -b /dev/vdb ]; then
    mount -t ext4 -o noatime /dev/vdb /data || stuck 'cannot mount the data disk (/dev/vdb)'
else
    echo 'initrd: no data disk: changes are kept in memory only'
    mount -t tmpfs -o mode=755 tmpfs /data
fi
mkdir -p /data/upper /data/work
mount -t overlay -o lowerdir=/image,upperdir=/data/upper,workdir=/data/work root /root ||
    stuck 'cannot put the data disk over the image'
umount /proc
umount /sys
mount --move /dev /root/dev
exec switch_root /root /sbin/init
