#!/bin/sh
# A machine that looks like Kaggle's, made of namespaces: /kaggle/input and /kaggle/working, a /tmp of its own,
# no network, nothing of this repository, and a clean environment.
#   unshare --mount --net [--map-root-user] sh kaggle_machine.sh NEW_ROOT REPOSITORY VENV BOX PARAMETERS
# BOX holds input/, working/ and src/ with driver.py, which gets PARAMETERS; NEW_ROOT is an empty folder.
set -eu
root=$1 repository=$2 venv=$3 box=$4
shift 4
mount --make-rprivate / 2>/dev/null || true
mount -t tmpfs tmpfs "$root"
for entry in /*; do
    name=${entry#/}
    case $name in tmp|kaggle) continue ;; esac
    if [ -L "$entry" ]; then cp -P "$entry" "$root/$name"
    elif [ -d "$entry" ]; then mkdir "$root/$name"; mount --rbind "$entry" "$root/$name"
    fi
done
mkdir -p "$root/tmp" "$root/venv" "$root/kaggle/input" "$root/kaggle/working" "$root/kaggle/src"
mount --bind "$venv" "$root/venv"
mount --bind "$box/input" "$root/kaggle/input"
mount -o remount,bind,ro "$root/kaggle/input" 2>/dev/null || true
mount --bind "$box/working" "$root/kaggle/working"
mount --bind "$box/src" "$root/kaggle/src"
if [ -d "$root$repository" ]; then mount -t tmpfs tmpfs "$root$repository"; fi
exec chroot "$root" /usr/bin/env -i PATH=/venv/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 OMP_NUM_THREADS=1 \
    KAGGLE_KERNEL_RUN_TYPE=Batch KAGGLE_URL_BASE=https://www.kaggle.com /venv/bin/python /kaggle/src/driver.py "$@"
