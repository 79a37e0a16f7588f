"""The traps between Epoch, Cocoon and OCI, one row each: what goes wrong, what is done, and which tests see to it.

`python tests/traps.py > docs/traps.md` writes the page again.
"""

import sys
from dataclasses import dataclass

INTRODUCTION = """\
# Traps between Epoch, Cocoon and OCI

What a bridge between the three can get wrong without anybody noticing, what `epoch-oci` does about it, and the tests
that see to it (names below `tests/`). Written by `python tests/traps.py`; a test holds it to the tests that are there.

| | The trap | What is done | Tests |
|--:|---|---|---|
"""


@dataclass(frozen=True)
class Trap:
    """`tests` are `FILE::FUNCTION` without `.py`; where there are none, `done` says why it cannot happen here."""

    number: int
    trap: str
    done: str
    tests: tuple[str, ...] = ()


TRAPS = (
    Trap(
        1,
        "Six programs have written Epoch manifests, one of them without a version and with a key in another case",
        "all six are read; the version may be missing, and of all keys only that one may differ in case",
        (
            "test_epoch_manifest::test_documents_of_every_writer",
            "test_epoch_manifest::test_the_first_form_of_epoch_push",
        ),
    ),
    Trap(
        2,
        "A manifest that is parsed and written again has other bytes, and another digest",
        "the bytes travel; only what is derived is ever written",
        (
            "test_flows::test_every_writer_comes_back_byte_for_byte",
            "test_dialect_cocoon::test_any_document_comes_back_with_its_bytes",
        ),
    ),
    Trap(
        3,
        "After a re-tag the document names another tag than the key it is stored under",
        "the key says where a snapshot lives; the document stays as it is",
        (
            "test_flows::test_a_retagged_snapshot_travels_under_its_key",
            "test_epoch_store::test_say_where_a_snapshot_is_whatever_the_document_says",
        ),
    ),
    Trap(
        4,
        "`createdAt` means three things, and Go's zero time means none",
        "times are passed on as text; the zero time becomes no date",
        (
            "test_dialect_cocoonstack::test_the_date_is_never_invented_traps_4_and_6",
            "test_epoch_times::test_the_zero_time_and_nothing_are_not_set",
        ),
    ),
    Trap(
        5,
        "Digests are written bare, with `sha256:`, and in keys with a dash",
        "each place has its spelling, and the store of a legacy server reads both",
        ("test_epoch_server::test_digests_come_with_and_without_their_prefix",),
    ),
    Trap(
        6,
        "Modern Epoch puts the time of the push into config and manifest: no two pushes have one digest",
        "both times are the snapshot's; the same snapshot has the same digest in every process",
        (
            "test_dialect_cocoonstack::test_one_digest_in_every_process",
            "test_dialect_cocoonstack::test_the_date_is_never_invented_traps_4_and_6",
        ),
    ),
    Trap(
        7,
        "A layer's size is that of the file or that of its packed form, and only a map tells which",
        "the map stays with the blob; files on a disk are unfolded",
        (
            "test_flows::test_files_land_under_their_own_names_unfolded",
            "test_cocoon_commands::test_a_packed_disk_stays_packed_and_unfolds_into_files",
        ),
    ),
    Trap(
        8,
        "Epoch 0.1.6 and 0.1.7 pushed packed files without the map: they cannot be unfolded by anybody",
        "refused where the sizes prove it, a warning where nothing does; never mended",
        (
            "test_dialect_cocoonstack_reading::test_packed_bodies_without_a_map_are_refused_trap_8",
            "test_dialect_cocoonstack_reading::test_where_nothing_proves_it_there_is_a_warning_trap_8",
            "test_cocoon_export::test_a_disk_whose_map_was_lost",
            "test_cocoon_compat::test_a_disk_without_its_map",
        ),
    ),
    Trap(
        9,
        "Of most writers the blob is the whole file, and its mode is not known",
        "an entry without a map then, and no invented mode",
        (
            "test_dialect_cocoonstack::test_whole_files_have_an_entry_without_a_map_trap_9",
            "test_dialect_cocoonstack_reading::test_a_file_with_an_entry_is_what_it_is_trap_9",
        ),
    ),
    Trap(
        10,
        "Epoch's manifest has no place for modes and maps that Epoch itself would heed",
        "they become `layerHeaders`, and a warning says that Epoch's own tools do not unfold such files",
        ("test_dialect_cocoonstack_reading::test_maps_and_modes_become_layer_headers_trap_10",),
    ),
    Trap(
        11,
        "A map may be `null`, and may contradict the blob",
        "a file that is one hole is read; every other disagreement is refused",
        (
            "test_epoch_sparse::test_a_file_that_is_one_hole_has_no_map_and_no_bytes",
            "test_epoch_sparse::test_maps_that_cannot_be_right_are_refused",
            "test_dialect_cocoonstack_reading::test_sparse_maps_that_do_not_fit_trap_11",
        ),
    ),
    Trap(
        12,
        "Go reads 1 MiB of PAX records, and Epoch 1 MiB of config",
        "a longer map goes into an archive unfolded; a manifest that would not fit does not ride, and is listed",
        (
            "test_cocoon_import::test_a_map_too_long_for_any_reader",
            "test_dialect_cocoonstack::test_where_epoch_could_not_read_the_config_the_manifest_does_not_ride_trap_12",
        ),
    ),
    Trap(
        13,
        "A file may be empty, and registries disagree about empty blobs",
        "the cocoon dialect lists no empty file and restores it; the cocoonstack dialect has to list it",
        (
            "test_dialect_cocoon::test_an_empty_file_must_not_be_listed",
            "test_dialect_cocoonstack::test_every_layer_becomes_a_file_and_so_an_empty_file_is_a_layer_trap_13",
        ),
    ),
    Trap(
        14,
        "A base image among the layers of a modern snapshot becomes a file of the VM",
        "the cocoonstack dialect gets none; the push lists them and wants `--allow-loss`",
        ("test_dialect_cocoonstack::test_base_images_have_no_place_traps_14_and_15",),
    ),
    Trap(
        15,
        "A base image is named by an ID that is not its digest, and Cocoon finds it by that name alone",
        "name and digest are both kept; in a root it lies under its own name, mode 0444, and is pinned",
        (
            "test_cocoon_root::test_a_snapshot",
            "test_cocoon_ways::test_to_another_node",
            "test_cocoon_import::test_base_images_are_left_out_and_pinned",
        ),
    ),
    Trap(
        16,
        "Some writers have blob IDs and no base images, others the reverse",
        "what is pinned is both together; the document keeps what it had",
        (
            "test_cocoon_envelope::test_base_images_and_blob_ids_are_united",
            "test_dialect_cocoonstack::test_blobs_are_those_named_and_those_of_base_images_trap_16",
        ),
    ),
    Trap(
        17,
        "Blob IDs of VMs made from OCI images name no cloud image",
        "they are told apart from missing base images by the VM's disk",
        ("test_cocoon_compat::test_base_images", "test_cocoon_root::test_base_images_under_every_name"),
    ),
    Trap(
        18,
        "Epoch's own `pull` and `get` each drop something that a second push would need",
        "pull restores the manifest's bytes with every blob they name; what is missing is exit 5, not left out",
        (
            "test_flows::test_a_missing_blob_is_said_before_anything_moves",
            "test_cli_transfer::test_every_writer_there_and_back",
        ),
    ),
    Trap(
        19,
        "A base image that its pusher did not find leaves no trace in the manifest",
        "`inspect` and `pull` name images that are pinned and not carried",
        ("test_flows::test_inspect_says_what_is_missing", "test_cocoon_compat::test_base_images"),
    ),
    Trap(
        20,
        "By Epoch's rule a Firecracker snapshot is a cloud image",
        "a snapshot ID makes it a snapshot; a warning says what Epoch will take it for",
        (
            "test_dialect_cocoonstack::test_a_firecracker_snapshot_is_no_cloud_image_trap_20",
            "test_cocoon_envelope::test_firecracker_is_told_from_its_files",
            "test_epoch_manifest::test_cloud_images",
        ),
    ),
    Trap(
        21,
        "Blob IDs or base images in a cloud image make a snapshot of it",
        "a derived image has neither",
        ("test_dialect_cocoonstack_images::test_a_derived_image_has_neither_blobs_nor_base_images_trap_21",),
    ),
    Trap(
        22,
        "Parts are joined in the order of the array by the one, of their titles by the other",
        "titles of fixed width where the two differ; the names they had come back",
        (
            "test_dialect_cocoonstack_images::test_parts_in_another_order_get_titles_of_fixed_width_trap_22",
            "test_dialect_cocoonstack_images::test_any_image_is_joined_as_it_was_and_comes_back_exactly",
        ),
    ),
    Trap(
        23,
        "By the names that image builders give parts, Epoch does not know a cloud image",
        "derived images get names by which it does",
        ("test_dialect_cocoonstack_images::test_names_by_which_epoch_knows_a_cloud_image_trap_23",),
    ),
    Trap(
        24,
        "Modern readers find the disk by media type, and skip octets",
        "parts of a disk get the type of one; a disk of octets alone is refused",
        (
            "test_dialect_cocoonstack_images::test_the_artifact_of_a_cloud_image_trap_24",
            "test_dialect_cocoonstack_images::test_parts_as_octets_are_no_disk_trap_24",
        ),
    ),
    Trap(
        25,
        "What lies beside the disk (checksums) would be joined to it",
        "it is kept out of the disk, and carried",
        (
            "test_dialect_cocoonstack_images::test_layers_beside_the_disk_are_kept_out_of_it_trap_25",
            "test_cocoon_commands::test_a_cloud_image_is_joined",
        ),
    ),
    Trap(
        26,
        "Two layers of one title: the last one wins, silently",
        "refused, in artifacts and in archives",
        (
            "test_dialect_cocoonstack_reading::test_layers_that_are_refused_traps_26_and_27",
            "test_cocoon_export::test_no_name_twice",
        ),
    ),
    Trap(
        27,
        "A file called `snapshot.json` replaces Cocoon's envelope, and paths are flattened",
        "refused: names are flat and portable, and that one is reserved",
        (
            "test_dialect_cocoonstack_reading::test_layers_that_are_refused_traps_26_and_27",
            "test_cocoon_export::test_flat_portable_names",
        ),
    ),
    Trap(
        28,
        "A raw cloud image can be kept, and Cocoon does not import it",
        "`inspect` and `pull` say so",
        ("test_cocoon_compat::test_cloud_images",),
    ),
    Trap(
        29,
        "Each side has members that the other has no word for",
        "they ride along in members that readers skip, and come back; what does not fit is listed",
        (
            "test_dialect_cocoonstack_reading::test_what_rides_in_a_derived_manifest_is_restored_traps_29_and_30",
            "test_dialect_cocoonstack::test_any_epoch_document_comes_back_exactly",
            "test_dialect_cocoonstack_convert::test_from_an_artifact_of_others_to_each_and_back",
        ),
    ),
    Trap(
        30,
        "Windows, network and hypervisor decide how a clone boots, and Epoch's manifest never had them",
        "nothing is guessed; a Windows guest that is not marked as one is told",
        (
            "test_cocoon_compat::test_a_windows_guest",
            "test_dialect_cocoonstack_reading::test_what_cocoons_envelope_says_fills_the_config_as_epoch_would",
        ),
    ),
    Trap(
        31,
        "Queue sizes and direct I/O never survived Epoch",
        "they do here: Cocoon's envelope rides as it is",
        ("test_cocoon_import::test_queue_sizes_and_the_rest_survive",),
    ),
    Trap(
        32,
        "In a modern artifact further layers or another media type break readers",
        "what rides is one member of the config that Go's readers skip",
        (
            "test_dialect_cocoonstack::test_the_artifact_of_a_snapshot",
            "test_dialect_cocoonstack::test_files_modes_and_maps_survive_readers_that_drop_what_they_do_not_know",
        ),
    ),
    Trap(
        33,
        "An import gives a snapshot a new ID and a new time",
        "as Cocoon does; its own ID stays in the manifest, and what is there already is known by its content",
        ("test_cocoon_root::test_a_snapshot", "test_cocoon_landing::test_again_changes_nothing"),
    ),
    Trap(
        34,
        "Zero processors, memory or storage means that nobody said",
        "absent numbers stay absent",
        ("test_dialect_cocoonstack::test_absent_numbers_stay_absent_trap_34",),
    ),
    Trap(
        35,
        "Epoch never checked names and tags; OCI does",
        "the user chooses a legal target, and the document keeps its name; hostile ones are refused everywhere",
        (
            "test_flows::test_a_tag_that_oci_does_not_allow_needs_another",
            "test_epoch_keys::test_names_that_only_oci_refuses_are_epochs_own_business",
            "test_recorded::test_what_a_bucket_has_goes_out_and_is_what_the_hypervisor_left",
            "test_epoch_server::test_any_name_gets_through",
        ),
    ),
    Trap(
        36,
        "`catalog.json` lacks snapshots and lists gone ones; pseudo-tags and `_digests/` lie among the tags",
        "listing reads the keys; `verify` says where the catalog differs; copies by digest are no tags",
        (
            "test_object_conditions::test_the_listing_is_of_the_manifests",
            "test_epoch_server::test_tags_are_those_that_are_stored",
            "test_epoch_server::test_pseudo_tags",
        ),
    ),
    Trap(
        37,
        "No Epoch before 0.2.1 hashed what was put under a digest",
        "every byte is hashed on its way; a wrong blob is exit 3 and nothing is tagged",
        (
            "test_epoch_server::test_are_hashed_by_whoever_takes_them",
            "test_bucket_commands::test_verify_finds_wrong_bytes",
        ),
    ),
    Trap(
        38,
        "A legacy server answers 200 for whatever is asked of a name with a slash",
        "such names go encoded, and an answer without a digest is not believed",
        (
            "test_epoch_server::test_a_blob_is_never_present_on_the_word_of_an_unknown_path",
            "test_epoch_server::test_what_answers_200_to_everything_is_no_server_of_epoch",
        ),
    ),
    Trap(
        39,
        "A newer server labels old manifests as OCI's",
        "the body tells what it is",
        ("test_epoch_server::test_the_content_type_says_nothing",),
    ),
    Trap(
        40,
        "Old and new Epoch share one bucket layout, and a migration in place would have to tell them apart",
        "each document is read as what it is; an old manifest goes into a bucket of new ones with `--force` alone",
        (
            "test_recorded::test_both_generations_in_one_bucket",
            "test_recorded::test_an_old_manifest_is_not_put_into_a_bucket_of_artifacts_but_by_force",
            "test_live_programs::test_the_bucket_of_a_live_epoch_is_read_and_kept_from_old_manifests",
        ),
    ),
    Trap(
        41,
        "Targets cap the size of a blob, and a modern snapshot has no parts",
        "parts in the cocoon dialect; in the other one a file that would need them is refused before the first byte",
        (
            "test_dialect_cocoonstack::test_files_cannot_be_cut_trap_41",
            "test_cocoon_commands::test_parts_that_the_dialect_has_no_place_for_are_refused_before_the_file",
        ),
    ),
    Trap(
        42,
        "Cocoon 0.2.8 and later import raw tar, versions before gzip",
        "raw tar is written, both are read; for an old Cocoon pipe it through `gzip`",
        ("test_cocoon_import::test_a_recorded_export_comes_back_byte_for_byte", "test_cocoon_export::test_gzip"),
    ),
    Trap(
        43,
        "A snapshot without `cocoon.json` imports everywhere and cannot be cloned by Cocoon 0.3.8",
        "`inspect` and `pull` say so",
        ("test_cocoon_compat::test_no_sidecar", "test_cocoon_commands::test_what_keeps_a_vm_from_being_cloned_is_said"),
    ),
    Trap(
        44,
        "Absolute paths in a VM's configuration tie it to a root directory",
        "those that lead out of the root are listed",
        (
            "test_cocoon_compat::test_paths_that_lead_out",
            "test_cocoon_commands::test_what_keeps_a_vm_from_being_cloned_is_said",
        ),
    ),
    Trap(
        45,
        "Epoch's own types drop OCI members when a foreign manifest is written again",
        "nothing that came from elsewhere is written again; members nobody knows stay in the bytes",
        (
            "test_dialect_cocoon::test_unknown_members_and_annotations_are_no_reason_to_refuse",
            "test_epoch_store::test_are_not_parsed_when_they_are_read",
        ),
    ),
)


def page() -> str:
    """docs/traps.md."""
    rows = (f"| {row.number} | {row.trap} | {row.done} | {_listed(row.tests)} |\n" for row in TRAPS)
    return INTRODUCTION + "".join(rows)


def _listed(tests: tuple[str, ...]) -> str:
    return " · ".join(f"`{test}`" for test in tests)


if __name__ == "__main__":
    sys.stdout.write(page())
