#!/bin/sh
# Becomes the init of the system in $1. Started as process 1 of new namespaces (mount, pid, uts, ipc, net, cgroup), so
# that nothing it does is seen outside and everything ends with it. No network but the loopback.
set -eu
system=$1

mount --make-rprivate /
mount --bind "$system" "$system"
mount -t proc proc "$system/proc"
mount -t sysfs -o ro sysfs "$system/sys"
# The unified hierarchy, with or without controllers, is what systemd needs to keep track of services.
mount -t cgroup2 cgroup2 "$system/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$system/dev"
for name in null zero full random urandom tty; do
    touch "$system/dev/$name"
    mount --bind "/dev/$name" "$system/dev/$name"
done
mkdir "$system/dev/pts" "$system/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$system/dev/pts"
ln -s pts/ptmx "$system/dev/ptmx"
ln -s /proc/self/fd "$system/dev/fd"
mount -t tmpfs tmpfs "$system/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$system/run"
mount -t tmpfs tmpfs "$system/tmp"

cd "$system"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec env -i container=bulla-check PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    /lib/systemd/systemd --log-target=journal-or-kmsg --show-status=0 </dev/null
