"""Documents, stores and archives that real Epoch, vk-cocoon, cocoon-common and Cocoon wrote, taken as a user would."""

import pytest
from cocoon_world import bodies
from recorded import EXPORTS, documents, export

from epoch_oci.flows.validate import validate


def test_every_document_is_valid_and_known_by_its_kind(subtests):
    for document in documents():
        with subtests.test(document=document):
            report = validate(document.raw, document.name)
            assert (report.kind, report.findings) == (document.kind, ())


@pytest.mark.parametrize("name", [name for name in EXPORTS if name.endswith(".tar")])
def test_every_envelope_is_valid(name):
    report = validate(bodies(export(name))["snapshot.json"], name)
    assert (report.kind, report.findings) == ("cocoon-export-envelope.v1", ())


def test_there_is_something_of_every_kind():
    assert {document.kind for document in documents()} >= {
        "epoch-manifest.v1",
        "epoch-catalog.v1",
        "cocoonstack-snapshot-manifest.v1",
        "cocoonstack-snapshot-manifest.v2",
        "cocoonstack-os-image-manifest.v1",
        "cocoonstack-snapshot-config.v1",
        "cocoonstack-snapshot-config.v2",
        "cocoon-snapshots.v1",
        "cocoon-images.v1",
        "oci-image-index.v1",
    }
