"""What words mean: one grammar for every verb and for the library."""

from pathlib import Path

import pytest

from epoch_oci import location
from epoch_oci.errors import UsageError
from epoch_oci.locate import Connection, locate_artifact, open_files, open_seed, open_store
from epoch_oci.location import (
    ArchiveLocation,
    LayoutLocation,
    NameLocation,
    RepositoryLocation,
    StoreLocation,
    parse,
    parse_artifact,
)

HEX = "ab" * 32
SHA512 = "sha512:" + "cd" * 64


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A directory with a few odd names in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("store", "lay:out!", "a:v1", "localhost:5000", "cocoon-root", "file.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "registry", "repository", "tag"),
    [
        ("localhost:5000/acme/bot", "localhost:5000", "acme/bot", None),
        ("ghcr.io/acme/bot:v2", "ghcr.io", "acme/bot", "v2"),
        ("docker://ghcr.io/acme/bot:v2", "ghcr.io", "acme/bot", "v2"),
        ("oci://ghcr.io/acme/bot", "ghcr.io", "acme/bot", None),
        ("localhost/bot", "localhost", "bot", None),
        ("[::1]:5000/bot:v1", "[::1]:5000", "bot", "v1"),
        ("host:5/x", "host:5", "x", None),
    ],
)
def test_repositories(word, registry, repository, tag):
    found = parse(word)
    assert isinstance(found, RepositoryLocation) and not found.is_here
    assert (found.reference.registry, found.reference.repository, found.reference.tag) == (registry, repository, tag)


@pytest.mark.parametrize(
    ("word", "path", "tag", "digest"),
    [
        ("oci:lay", "lay", None, None),
        ("oci:lay:v1", "lay", "v1", None),
        ("oci:/srv/a.b/lay:v1", "/srv/a.b/lay", "v1", None),
        ("oci:lay:out!", "lay:out!", None, None),
        ("oci:lay:out!:v1", "lay:out!", "v1", None),
        ("oci:a:v1", "a", "v1", None),
        ("oci:a:b:v1", "a:b", "v1", None),
        (f"oci:lay@sha256:{HEX}", "lay", None, f"sha256:{HEX}"),
        (f"oci:lay:v1@sha256:{HEX}", "lay", "v1", f"sha256:{HEX}"),
        (f"oci:lay@{SHA512}", "lay", None, SHA512),
        ("oci:lay@work", "lay@work", None, None),
    ],
)
def test_layouts(word, path, tag, digest):
    found = parse(word)
    assert isinstance(found, LayoutLocation) and found.is_here
    assert (found.path, found.tag, str(found.digest) if found.digest else None) == (Path(path), tag, digest)


def test_archives():
    found = parse(f"oci-archive:./a.tar:v1@sha256:{HEX}")
    assert isinstance(found, ArchiveLocation) and found.is_here
    assert (found.path, found.tag, str(found.digest)) == (Path("a.tar"), "v1", f"sha256:{HEX}")
    assert parse("oci-archive:file") == ArchiveLocation("oci-archive:file", Path("file"))
    with pytest.raises(UsageError, match="names no path; write oci-archive:FILE"):
        parse("oci-archive:")
    with pytest.raises(UsageError, match="is a directory; a layout in a directory is oci:store"):
        locate_artifact("oci-archive:store", connection=Connection())


@pytest.mark.parametrize(
    ("word", "kind", "local"),
    [
        ("store", "directory", True),
        ("./nowhere", "directory", True),
        ("/nowhere", "directory", True),
        ("~/epoch", "directory", True),
        ("~nobody-of-this-name/epoch", "directory", True),
        ("localhost:5000", "directory", True),
        ("file:///srv/epoch", "directory", True),
        ("s3://bucket/prefix", "bucket", False),
        ("epoch+http://host:4300", "server", False),
        ("cocoon:./nowhere", "cocoon", True),
        ("cocoon:cocoon-root", "cocoon", True),
    ],
)
def test_stores(word, kind, local):
    found = parse(word)
    assert isinstance(found, StoreLocation) and (found.kind, found.is_here) == (kind, local)
    assert location.parse_store(word) == found


@pytest.mark.parametrize("word", ["bot", "bot:v1", "team/bot:v1", "cocoon:v1", "ghcr.io", "localhost:5001", "file"])
def test_names(word):
    assert parse(word) == NameLocation(word)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("", "a location is empty"),
        ("https://ghcr.io/acme/bot", "write ghcr.io/acme/bot, or"),
        ("HTTPS://ghcr.io/acme/bot", "write ghcr.io/acme/bot, or"),
        ("http://nas:5000/bot", "write nas:5000/bot and give --plain-http"),
        ("a:b/c", "does not start with a registry host"),
        ("my_host:5/x", "does not start with a registry host"),
        ("host:99999/x", "does not start with a registry host"),
        ("ghcr.io/", "names a registry and no repository; write ghcr.io/REPOSITORY[:TAG]"),
        ("docker://ghcr.io", "names a registry and no repository"),
        ("oci:", "names no path"),
        ("oci::v1", "names no path"),
        ("oci:lay:", 'as a tag "" is empty'),
        ("oci:lay:bad tag", 'as a tag "bad tag" may hold only letters'),
        ("oci:a:b/c", 'as a tag "b/c" may hold only'),
        ("oci:lay:-x", "must start with a letter"),
        ("oci:lay@sha256:nonsense", "is not a digest"),
        (f"oci:lay@sha256:{HEX}@sha256:{HEX}", "more than one digest"),
        (f"oci:lay@sha256:{HEX}:v1", "is not a digest"),
        ("cocoon:", "names no directory"),
        ("cocoon:/", None),
        ("ftp://host/x", "names no kind of store"),
    ],
)
def test_what_can_mean_nothing_is_said_with_what_may_have_been_meant(word, says):
    if says is None:
        assert isinstance(parse(word), StoreLocation)
        return
    with pytest.raises(UsageError) as caught:
        parse(word)
    assert says in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("ghcr.io", "names a registry and no repository; write ghcr.io/REPOSITORY"),
        ("localhost:5001", "names a registry and no repository; write localhost:5001/REPOSITORY"),
        ("bot:v1", "neither a registry reference nor an OCI layout"),
        ("store", "a layout in that directory is oci:store"),
        ("s3://bucket", "neither a registry reference nor an OCI layout"),
    ],
)
def test_where_a_repository_or_layout_is_wanted(word, says):
    with pytest.raises(UsageError) as caught:
        parse_artifact(word)
    assert says in str(caught.value)


def test_a_file_where_a_directory_is_wanted(here):
    for open_it in (
        lambda: open_store("file"),
        lambda: open_store(f"file://{here}/file"),
        lambda: open_store("cocoon:file"),
        lambda: open_files(Path("file")),
        lambda: locate_artifact("oci:file", connection=Connection()),
        lambda: locate_artifact("oci:file:v1", connection=Connection(), create=True),
        lambda: open_seed("oci:file", connection=Connection()),
    ):
        with pytest.raises(UsageError, match="is a file, and a directory is wanted"):
            open_it()


def test_a_layout_is_no_store_and_a_repository_no_seed():
    with pytest.raises(UsageError, match="is an OCI image layout"):
        open_store("oci:lay")
    with pytest.raises(UsageError, match="a seed is a store"):
        open_seed("ghcr.io/acme/bot", connection=Connection())


def test_a_word_of_any_length_is_a_usage_error_or_a_name():
    for word in ("x" * 200_000, "oci:" + "x" * 200_000, "./" + "x" * 200_000):
        parse(word)
    open_store("./" + "x" * 200_000)
    with pytest.raises(UsageError):
        parse("ghcr.io/" + "x" * 200_000)
