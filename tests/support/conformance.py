"""What a registry must do, as ``CHECKS``: functions of a bare ``Client`` and a fresh repository name.

The same list is run against ``FakeRegistry`` and against CNCF distribution. A check names the kinds that are known to
deviate (``deviates``); there it must fail, so that the list stays true.
"""

from support import conformance_blobs, conformance_manifests
from support.conformance_check import ABSENT, CHECKS, DATA, DIGEST, Check

__all__ = ["ABSENT", "CHECKS", "DATA", "DIGEST", "Check", "conformance_blobs", "conformance_manifests"]
