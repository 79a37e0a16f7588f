"""The verbs of the library: what each does, what it raises, and how a running one is ended."""

import asyncio
import io
import os
import signal
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from snapshots import make_snapshot, open_store, put_snapshot, tree
from support.registry_auth import BasicAuth

import epoch_oci
from epoch_oci import ConflictError, Connection, NotFoundError, UsageError

USER, PASSWORD = "ana", "long-enough-secret"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Two snapshots of the same files in the store `store` of the current directory, and `v1` in the layout `a`."""
    monkeypatch.chdir(tmp_path)
    put_snapshot(tmp_path / "store", make_snapshot())
    put_snapshot(tmp_path / "store", make_snapshot(tag="v2"))
    epoch_oci.push("team/bot:v1", to="oci:a:v1", store="store")
    return tmp_path


def test_copy_keeps_bytes_tags_and_takes_further_ones(home):
    report = epoch_oci.copy("oci:a:v1", "oci:b", also=["stable"])
    assert report.digest == epoch_oci.inspect("oci:a:v1").document.digest and report.reference.endswith(":v1")
    assert epoch_oci.inspect("oci:b:stable").document == epoch_oci.inspect("oci:a:v1").document
    assert tree(home / "a/blobs") == tree(home / "b/blobs")


def test_copy_in_a_form_keeps_the_epoch_manifest(home):
    report = epoch_oci.copy("oci:a:v1", "oci:b:chunked", form=epoch_oci.Form(chunking=epoch_oci.Chunking()))
    assert report.digest != epoch_oci.inspect("oci:a:v1").document.digest
    epoch_oci.pull("oci:b:chunked", "back", options=epoch_oci.PullOptions(key=epoch_oci.SnapshotKey("team/bot", "v1")))
    assert open_store(home / "back").resolve("team/bot:v1").raw == make_snapshot().raw


def test_copy_within_a_registry_mounts(home, fake_registry):
    registry = fake_registry()
    there = f"{registry.address}/team"
    epoch_oci.copy("oci:a:v1", f"{there}/one:v1")
    report = epoch_oci.copy(f"{there}/one:v1", f"{there}/two")
    assert {blob.action for blob in report.blobs} == {"mounted"} and report.transferred == 0


def test_tag_returns_the_digest_and_replaces_nothing_unasked(home):
    digest = epoch_oci.tag("oci:a:v1", ["stable", "latest"])
    assert str(digest) == str(epoch_oci.inspect("oci:a:latest").document.digest)
    epoch_oci.push("team/bot:v2", to="oci:a:v2", store="store")
    with pytest.raises(ConflictError):
        epoch_oci.tag("oci:a:v2", ["new", "stable"])
    with pytest.raises(NotFoundError):
        epoch_oci.inspect("oci:a:new")
    epoch_oci.tag("oci:a:v2", ["stable"], force=True)
    assert epoch_oci.inspect("oci:a:stable").document == epoch_oci.inspect("oci:a:v2").document


def test_remove_says_what_was_there_and_what_could_not_be_removed(home):
    was = epoch_oci.inspect("oci:a:v1").document.digest
    assert [item.digest for item in epoch_oci.remove("oci:a:v1", dry_run=True)] == [was]
    assert epoch_oci.remove("oci:a:v1", "team/bot:v1", store="store")[0].digest == was
    assert [str(row.key) for row in epoch_oci.list_snapshots("store")] == ["team/bot:v2"]
    with pytest.raises(NotFoundError):
        epoch_oci.remove("oci:a:v1")
    with pytest.raises(epoch_oci.BatchError) as failed:
        epoch_oci.remove("team/bot:v2", "team/bot:v9", store="store")
    assert [type(error) for error in failed.value.failures] == [NotFoundError]
    assert epoch_oci.list_snapshots("store") == []


def test_prune_takes_tags_by_the_policy_and_what_nothing_refers_to(home):
    before = epoch_oci.prune("store", epoch_oci.Policy(last=1), grace=timedelta(0), dry_run=True)
    assert len(before.removed) == 1 and len(epoch_oci.list_snapshots("store")) == 2
    epoch_oci.prune("store", epoch_oci.Policy(last=1), grace=timedelta(0))
    assert len(epoch_oci.list_snapshots("store")) == 1 and epoch_oci.verify("store").ok


def test_diff_finds_the_same_and_the_other(home):
    assert epoch_oci.diff("team/bot:v1", "oci:a:v1", store="store").same
    other = make_snapshot("W2a", "other", "v1")
    put_snapshot(home / "store", other)
    assert not epoch_oci.diff("oci:a:v1", "other:v1", store=Path("store")).same


def test_sync_brings_everything_and_tells_of_each(home, fake_registry):
    registry = fake_registry()
    heard = []
    there = f"{registry.address}/vms"
    report = epoch_oci.sync("store", there, on_event=heard.append)
    assert sorted(row.target for row in report.rows) == [f"{there}/team/bot:v1", f"{there}/team/bot:v2"]
    assert not report.failures and any(event.event == "snapshot-done" for event in heard)
    selection = epoch_oci.Selection(include=["*:v2"])
    back = epoch_oci.sync(there, "back", repositories=["team/bot"], options=epoch_oci.SyncOptions(selection=selection))
    assert back.count("synced") == 1 and epoch_oci.verify("back").ok


def test_archives_go_to_files_and_streams_and_come_back(home):
    epoch_oci.pull_to_archive("oci:a:v1", "bot.tar")
    stream = io.BytesIO()
    epoch_oci.pull_to_archive("oci:a:v1", stream)
    assert stream.getvalue() == Path("bot.tar").read_bytes()
    assert Path("bot.tar").stat().st_mode & 0o777 == 0o600
    key = epoch_oci.PushOptions(key=epoch_oci.SnapshotKey("again", "v1"))
    report = epoch_oci.push_archive(Path("bot.tar"), "oci:b", options=key)
    assert report.digest == epoch_oci.push_archive(io.BytesIO(stream.getvalue()), "oci:c", options=key).digest
    assert epoch_oci.inspect("oci:b:v1").manifest.name == "again"
    with pytest.raises(ConflictError):
        epoch_oci.pull_to_archive("oci:a:v1", "bot.tar")
    epoch_oci.pull_to_archive("oci:a:v1", "bot.tar", replace=True)
    with pytest.raises(NotFoundError):
        epoch_oci.pull_to_archive("oci:a:v9", "none.tar")
    assert not Path("none.tar").exists() and not list(Path().glob(".epoch-oci*"))


def test_login_tries_the_credentials_and_logout_forgets_them(home, fake_registry):
    registry = fake_registry(auth=BasicAuth(USER, PASSWORD))
    place = f"{registry.address}/team/bot:v1"
    with pytest.raises(epoch_oci.AccessError):
        epoch_oci.login(registry.address, USER, "wrong-password")
    with pytest.raises(epoch_oci.AccessError):
        epoch_oci.push("team/bot:v1", to=place, store="store")
    kept = epoch_oci.login(registry.address, USER, PASSWORD)
    assert Path(kept).is_file() and PASSWORD not in kept
    epoch_oci.push("team/bot:v1", to=place, store="store")
    with epoch_oci.open_file(place, "config.json") as file:  # found in the environment, as by every verb
        assert file.read()
    assert epoch_oci.logout(registry.address) and not epoch_oci.logout(registry.address)


def test_a_path_is_one_on_this_machine_whatever_it_looks_like(home):
    put_snapshot(home / "ghcr.io/acme/bot", make_snapshot())
    assert len(epoch_oci.list_snapshots(Path("ghcr.io/acme/bot"))) == 1
    assert epoch_oci.verify(Path("ghcr.io/acme/bot")).ok
    put_snapshot(home / "localhost:5000", make_snapshot())
    assert len(epoch_oci.list_snapshots(Path("localhost:5000"))) == 1


WRONG = object()
VERBS = {
    "push": lambda **more: epoch_oci.push(**{"snapshot": "team/bot:v1", "to": "oci:x", "store": "store", **more}),
    "pull": lambda **more: epoch_oci.pull(**{"reference": "oci:a:v1", "to": "x", **more}),
    "copy": lambda **more: epoch_oci.copy(**{"source": "oci:a:v1", "target": "oci:x", **more}),
    "sync": lambda **more: epoch_oci.sync(**{"source": "store", "target": "oci:x", **more}),
    "push_archive": lambda **more: epoch_oci.push_archive(**{"archive": "bot.tar", "to": "oci:x", **more}),
    "pull_to_archive": lambda **more: epoch_oci.pull_to_archive(**{"reference": "oci:a:v1", "archive": "x", **more}),
    "inspect": lambda **more: epoch_oci.inspect(**{"word": "oci:a:v1", **more}),
    "verify": lambda **more: epoch_oci.verify(**{"word": "oci:a:v1", **more}),
    "list_snapshots": lambda **more: epoch_oci.list_snapshots(**{"store": "store", **more}),
    "diff": lambda **more: epoch_oci.diff(**{"a": "oci:a:v1", "b": "oci:a:v1", **more}),
    "open_file": lambda **more: epoch_oci.open_file(**{"location": "oci:a:v1", "name": "config.json", **more}),
    "tag": lambda **more: epoch_oci.tag(**{"reference": "oci:a:v1", "tags": ["x"], **more}),
    "prune": lambda **more: epoch_oci.prune(**{"location": "store", **more}),
    "login": lambda **more: epoch_oci.login(**{"registry": "127.0.0.1:9", "username": "a", "password": "b", **more}),
    "logout": lambda **more: epoch_oci.logout(**{"registry": "127.0.0.1:9", **more}),
}
PARAMETERS = {
    "push": ("snapshot", "to", "store", "options", "connection", "on_event"),
    "pull": ("reference", "to", "files", "options", "connection", "on_event"),
    "copy": ("source", "target", "also", "form", "options", "connection", "on_event"),
    "sync": ("source", "target", "repositories", "options", "connection", "on_event"),
    "push_archive": ("archive", "to", "options", "connection", "on_event"),
    "pull_to_archive": ("reference", "archive", "options", "connection", "on_event"),
    "inspect": ("word", "store", "connection"),
    "verify": ("word", "store", "options", "connection", "on_event"),
    "list_snapshots": ("store", "connection"),
    "diff": ("a", "b", "store", "connection"),
    "open_file": ("location", "name", "store", "cache", "connection"),
    "tag": ("reference", "tags", "connection"),
    "prune": ("location", "policy", "grace", "connection"),
    "login": ("registry", "username", "password", "connection"),
    "logout": ("registry", "connection"),
}


@pytest.mark.parametrize("verb", list(PARAMETERS))
def test_what_is_of_the_wrong_type_is_a_usage_error_and_nothing_happens(home, verb):
    epoch_oci.pull_to_archive("oci:a:v1", "bot.tar")
    before = tree(home)
    for parameter, wrong in product(PARAMETERS[verb], (WRONG, 3, b"bytes", {"jobs": 1})):
        with pytest.raises(UsageError):
            VERBS[verb](**{parameter: wrong})
            raise AssertionError(f"{verb}({parameter}={wrong!r}) was accepted")
        assert tree(home) == before, (parameter, wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda: epoch_oci.push(
            "team/bot:v1", to="oci:x", store="store", options=epoch_oci.PushOptions(dialect="docker")
        ),
        lambda: epoch_oci.copy("oci:a:v1", "oci:x", also="stable"),
        lambda: epoch_oci.copy("oci:a:v1", "oci:x", also=["no tag"]),
        lambda: epoch_oci.copy("oci:a:v1", f"oci:x@sha256:{'0' * 64}"),
        lambda: epoch_oci.tag("oci:a:v1", []),
        lambda: epoch_oci.tag("oci:a:v1", "stable"),
        lambda: epoch_oci.remove("oci:a"),
        lambda: epoch_oci.remove("team/bot", store="store"),
        lambda: epoch_oci.remove(3),
        lambda: epoch_oci.diff("store", "oci:a:v1"),
        lambda: epoch_oci.sync("oci:a:v1", "x"),
        lambda: epoch_oci.prune("store", grace=timedelta(-1)),
        lambda: epoch_oci.push_archive(io.StringIO("text"), "oci:x"),
        lambda: epoch_oci.login("not a host", "a", "b"),
        lambda: epoch_oci.login("127.0.0.1:9", "a:b", "c"),
        lambda: epoch_oci.inspect("127.0.0.1:9/a:b", connection=Connection(profile="nonsense")),
        lambda: epoch_oci.verify("", store="store"),
    ],
)
def test_what_can_mean_nothing_is_a_usage_error(home, call):
    with pytest.raises(UsageError):
        call()
    assert not Path("x").exists()


class StopError(Exception):
    """Raised by a listener."""


@pytest.mark.parametrize("moment", ["phase", "plan", "blob-start", "blob-done"])
def test_what_a_listener_raises_ends_the_verb_and_the_next_run_goes_on(home, moment):
    def listen(event):
        if event.event == moment:
            raise StopError

    with pytest.raises(StopError):
        epoch_oci.push("team/bot:v2", to="oci:b:v2", store="store", on_event=listen)
    with pytest.raises(NotFoundError):
        epoch_oci.inspect("oci:b:v2")
    epoch_oci.push("team/bot:v2", to="oci:b:v2", store="store")
    with pytest.raises(StopError):
        epoch_oci.pull("oci:b:v2", "back", on_event=listen)
    assert epoch_oci.list_snapshots("store") and not (home / "back/manifests/team/bot/v2.json").exists()
    epoch_oci.pull("oci:b:v2", "back")
    assert epoch_oci.verify("back").ok


def test_what_a_listener_raises_ends_what_moves_over_a_network_too(home, fake_registry):
    registry = fake_registry()

    def listen(event):
        if event.event == "blob-done":
            raise StopError

    with pytest.raises(StopError):
        epoch_oci.push("team/bot:v1", f"{registry.address}/team/bot", store="store", on_event=listen)
    epoch_oci.push("team/bot:v1", f"{registry.address}/team/bot", store="store")
    with pytest.raises(StopError):
        epoch_oci.sync(f"{registry.address}/team", "oci:b", repositories=["bot"], on_event=listen)
    assert epoch_oci.sync(f"{registry.address}/team", "oci:b", repositories=["bot"]).count("synced") == 1


def test_a_verb_leaves_the_process_as_it_was(home, fake_registry):
    def state():
        mask = os.umask(0o77)
        os.umask(mask)
        return mask, os.getcwd(), dict(os.environ), [signal.getsignal(each) for each in signal.valid_signals()]

    before = state()
    registry = fake_registry()
    epoch_oci.push("team/bot:v1", f"{registry.address}/team/bot", store="store")
    epoch_oci.pull(f"{registry.address}/team/bot:v1", "back")
    epoch_oci.pull(f"{registry.address}/team/bot:v1", files="files")
    assert epoch_oci.verify(f"{registry.address}/team/bot:v1").ok
    assert state() == before


def test_verbs_run_side_by_side_in_threads_of_an_event_loop(home):
    async def all_of_them():
        return await asyncio.gather(
            *(asyncio.to_thread(epoch_oci.push, "team/bot:v1", f"oci:c{n}", store="store") for n in range(2)),
            *(asyncio.to_thread(epoch_oci.push, "team/bot:v1", "oci:d", store="store") for _ in range(2)),
        )

    reports = asyncio.run(all_of_them())
    assert len({report.digest for report in reports}) == 1
    assert epoch_oci.verify("oci:d").ok
