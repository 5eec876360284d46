#!/bin/busybox sh
# Init of the demo guest's initrd: puts the writable disk (vdb) over the read-only image (vda) and
# hands over to the distribution's init. A third disk (vdc) is a squashfs with files of a test, which
# lie over those of the image.
# rd.driver.pre=MODULE on the kernel command line, dracut's parameter, inserts a module before that.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/boot); do
    insmod "/modules/$module.ko"
done
for word in $(cat /proc/cmdline); do
    case $word in
        rd.driver.pre=*)
            for module in $(cat "/modules/${word#*=}.needs"); do
                [ -d "/sys/module/$module" ] || insmod "/modules/$module.ko"
            done
            ;;
    esac
done

stuck() {
    echo "initrd: $*"
    exec sh
}

mkdir -p /image /extra /data /root
mount -t squashfs -o ro /dev/vda /image || stuck 'cannot mount the image (/dev/vda)'
if [ -b /dev/vdb ]; then
    mount -t ext4 -o noatime /dev/vdb /data || stuck 'cannot mount the data disk (/dev/vdb)'
else
    echo 'initrd: no data disk: changes are kept in memory only'
    mount -t tmpfs -o mode=755 tmpfs /data
fi
lower=/image
if [ -b /dev/vdc ]; then
    mount -t squashfs -o ro /dev/vdc /extra || stuck 'cannot mount the files of the test (/dev/vdc)'
    lower=/extra:/image
fi
mkdir -p /data/upper /data/work
mount -t overlay -o lowerdir=$lower,upperdir=/data/upper,workdir=/data/work root /root ||
    stuck 'cannot put the data disk over the image'
umount /proc
umount /sys
mount --move /dev /root/dev
exec switch_root /root /sbin/init
