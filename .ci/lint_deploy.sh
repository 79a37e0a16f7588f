#!/bin/sh
# lint_deploy.sh: what lies in examples/deploy, and the workflows, each looked at by its own tool on PATH. What is not here is
# named and left out; with EPOCH_OCI_REQUIRE_LIVE=1, as CI sets it, that is a failure.
set -u
cd "$(dirname "$0")/../examples/deploy" || exit 1
wrong=0

lint() {
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "lint-deploy: $1 is not here; left out: $*"
        [ -z "${EPOCH_OCI_REQUIRE_LIVE-}" ] || wrong=1
    elif ! "$@"; then
        echo "lint-deploy: refused by $1"
        wrong=1
    fi
}

lint hadolint Containerfile
lint shellcheck node/prefetch.sh ../offline.sh ../../.ci/*.sh ../../.ci/run
lint check-jsonschema --quiet --builtin-schema vendor.github-actions push-snapshot/action.yml
lint check-jsonschema --quiet --builtin-schema vendor.github-workflows workflow/*.yml ../../.github/workflows/*.yml
lint actionlint workflow/*.yml ../../.github/workflows/*.yml
lint kubernetes-validate --quiet --strict kubernetes/cronjob.yaml

# The program that the unit starts is not installed here; in a copy it is one that is.
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' systemd/epoch-oci-sync.service >"$units/epoch-oci-sync.service"
cp systemd/epoch-oci-sync.timer "$units/"
lint systemd-analyze verify --man=no "$units/epoch-oci-sync.service" "$units/epoch-oci-sync.timer"
# Ten is a service that may do anything.
lint systemd-analyze security --no-pager --offline=true --threshold=15 "$units/epoch-oci-sync.service" >"$units/exposure" ||
    wrong=1
tail -n 1 "$units/exposure"
exit "$wrong"
