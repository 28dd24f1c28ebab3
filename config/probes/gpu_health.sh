#!/bin/sh
# A notice once the kernel's log holds an error of a GPU that only a reset or another machine mends: for a source of kind
# "command". It has to be allowed to read the kernel's log (root, CAP_SYSLOG, or kernel.dmesg_restrict = 0).
#
#   gpu_health.sh [XID…]
#
# The numbers are those of NVIDIA's driver ("NVRM: Xid (PCI:0000:41:00): 79, …"). Unless others are named: 48 (memory error
# that could not be corrected), 64 (row remapping failed), 74 (NVLink), 79 (fallen off the bus), 95 (memory error that was not
# contained), 119 and 120 (the GPU's own processor hangs).

set -u
[ $# -gt 0 ] || set -- 48 64 74 79 95 119 120

log=$(dmesg) || exit 1
for xid in $(printf '%s\n' "$log" | sed -n 's/.*NVRM: Xid ([^)]*): \([0-9][0-9]*\),.*/\1/p'); do
    for wanted in "$@"; do
        if [ "$xid" = "$wanted" ]; then
            echo "{\"reason\": \"Xid $xid in the kernel's log\"}"
            exit 0
        fi
    done
done
exit 110
