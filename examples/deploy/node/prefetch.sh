#!/bin/bash
# prefetch.sh PREFIX NAME[:TAG]...: brings snapshots from an OCI registry to this Cocoon node, under the very names that
# vk-cocoon looks for before it asks Epoch: NAME:TAG, and NAME alone for `latest`. What is there stays as it is, as with
# vk-cocoon; a snapshot that cannot be had does not keep the others, and the exit code is then 10.
#
#   prefetch.sh harbor.example.com/vms sre-agent-bot:v3 win11
#
# COCOON is how Cocoon is called (default: `sudo cocoon`, as vk-cocoon does).
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: prefetch.sh HOST[:PORT]/PREFIX NAME[:TAG]..." >&2
    exit 2
fi
prefix=${1%/}
shift
read -ra cocoon <<<"${COCOON:-sudo cocoon}"
# Two runs at a time would fetch a snapshot twice; whoever comes second finds it there.
exec 9<"$0"
flock 9

there() { "${cocoon[@]}" snapshot inspect "$1" >/dev/null 2>&1; }

fetch() {
    local name=${1%:*} tag=latest local_name
    case $1 in *:*) tag=${1##*:} ;; esac
    local_name=$name:$tag
    if [ "$tag" = latest ]; then local_name=$name; fi
    if there "$local_name"; then
        echo "$local_name: there"
        return 0
    fi
    local ended
    epoch-oci pull "$prefix/$name:$tag" -o - | "${cocoon[@]}" snapshot import --name "$local_name"
    ended=("${PIPESTATUS[@]}")
    if [ "${ended[*]}" = "0 0" ]; then
        echo "$local_name: imported"
        return 0
    fi
    # Of an archive that ended early Cocoon may have made a snapshot all the same. If Cocoon refused, what bears the name
    # now is somebody else's.
    if [ "${ended[1]}" = 0 ]; then "${cocoon[@]}" snapshot rm "$local_name" >/dev/null; fi
    echo "$local_name: failed" >&2
    return 1
}

failed=0
for snapshot in "$@"; do
    fetch "$snapshot" || failed=10
done
exit "$failed"
