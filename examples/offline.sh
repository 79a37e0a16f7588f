#!/bin/sh
# A snapshot from one machine to another on a disk: offline.sh STORE SNAPSHOT DIR
# Whatever breaks on the way, the same command goes on.
set -eu
store=$1 snapshot=$2 disk=$3
tag=${snapshot##*:}

epoch-oci push "$snapshot" "oci:$disk/layout" --store "$store"
epoch-oci verify "oci:$disk/layout:$tag" --round-trip            # every byte, before the disk leaves

# … on the other side:
epoch-oci pull "oci:$disk/layout:$tag" --store "$disk/restored"
epoch-oci verify "$snapshot" --store "$disk/restored"

# The Epoch manifest is the same, byte for byte.
name=${snapshot%:*}
cmp "$store/manifests/$name/$tag.json" "$disk/restored/manifests/$name/$tag.json"
echo "the same"
