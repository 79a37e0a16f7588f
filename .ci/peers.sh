#!/bin/sh
# Installs foreign clients and servers for the live tests, in pinned versions:
# peers.sh DIR ORAS CRANE REGCTL REGISTRY VERSITY ACTIONLINT AJV AJV_FORMATS SARIF_MULTITOOL.
# What cannot be installed here is named and left out; the tests that need it say so.
set -u
dir=$1
mkdir -p "$dir"

debian() {
    command -v "$2" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        [ -n "${updated:-}" ] || { apt-get update -q >/dev/null && updated=yes; }
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$1" >/dev/null && return 0
    fi
    echo "peers: $1 is not here and could not be installed"
}

golang() {
    name=$1 module=$2
    [ -x "$dir/$name" ] && [ "$(cat "$dir/.$name.version" 2>/dev/null)" = "$module" ] && return 0
    if command -v go >/dev/null 2>&1 && (cd / && GOBIN="$dir" GOFLAGS=-trimpath go install "$module" 2>&1 | tail -n 3); then
        if [ -x "$dir/$name" ]; then echo "$module" >"$dir/.$name.version"; return 0; fi
    fi
    echo "peers: $name could not be built (is there a Go toolchain?)"
}

debian docker-registry docker-registry
debian skopeo skopeo
debian apache2-utils htpasswd
golang oras "oras.land/oras/cmd/oras@$2"
golang crane "github.com/google/go-containerregistry/cmd/crane@$3"
golang regctl "github.com/regclient/regclient/cmd/regctl@$4"
golang registry "github.com/distribution/distribution/v3/cmd/registry@$5"
golang versitygw "github.com/versity/versitygw/cmd/versitygw@$6"
golang actionlint "github.com/rhysd/actionlint/cmd/actionlint@$7"
if command -v npm >/dev/null 2>&1; then
    npm install --silent --no-audit --no-fund --prefix "$dir/../node" "ajv@$8" "ajv-formats@$9" \
        "@microsoft/sarif-multitool-linux@${10}" || echo "peers: ajv and the schema of SARIF could not be installed"
else
    echo "peers: ajv and the schema of SARIF are left out, for there is no npm"
fi
echo "peers: $(cd "$dir" && echo ./*)"
