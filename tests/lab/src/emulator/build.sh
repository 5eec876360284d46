# Builds QEMU's x86 emulator in the unpacked system $1, which has a compiler and, in /usr/src/qemu, the
# source. Runs in namespaces of its own.
set -eu
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# The package's own scripts would write this; QEMU's configuration starts pip, which wants it.
mkdir -p "$root/etc/ssl/certs"
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
env -i PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/tmp chroot "$root" sh -euc '
    cd /usr/src/qemu
    # VMRUN with an interrupt to inject delivers it and leaves it noted as an exception that is still
    # to be raised. Whatever stops the loop of translated code before anything else overwrites that
    # note raises it once more, even where the guest has interrupts off.
    delivery="do_interrupt_x86_hardirq(env, vector, 1);"
    source=target/i386/tcg/system/svm_helper.c
    [ "$(grep -cF "$delivery" "$source")" = 1 ] || { echo "QEMU is not what it was: see $source"; exit 1; }
    sed -i "s/$delivery/& cs->exception_index = -1;/" "$source"
    mkdir build
    cd build
    ../configure --cc=gcc --host-cc=gcc --target-list=x86_64-softmmu --without-default-features \
        --enable-system --enable-tcg --enable-virtfs --enable-attr --enable-fdt=system \
        --disable-debug-info --disable-install-blobs
    ninja qemu-system-x86_64
    strip qemu-system-x86_64
'
