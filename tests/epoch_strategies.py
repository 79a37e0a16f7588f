"""Hypothesis strategies for Epoch documents: any that a writer could have made, in any spelling JSON allows."""

import hashlib
import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from epoch_oci.epoch.keys import hostile_problem

# A loaded machine draws slowly; that says nothing about the code.
PROPERTY = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
EMPTY_HEX = hashlib.sha256(b"").hexdigest()

text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
identity = text.filter(lambda value: value != "" and hostile_problem(value) is None)
file_name = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,20}[A-Za-z0-9_+-]", fullmatch=True).filter(
    lambda name: (
        name.lower() != "snapshot.json"
        and name.split(".")[0].lower() not in {"con", "prn", "aux", "nul"}
        and not name.lower().startswith(("com", "lpt"))
    )
)
known_name = st.sampled_from(
    ["config.json", "state.json", "memory-ranges", "cidata.img", "overlay.qcow2", "cow.raw", "vmstate", "mem", "d.raw"]
)
media_type = st.sampled_from(
    [
        "application/vnd.cocoon.disk.qcow2",
        "application/vnd.cocoon.memory",
        "application/octet-stream",
        "application/vnd.example.thing.v1+json",
        "application/vnd.cocoon.disk.raw.part",
    ]
)
amount = st.integers(0, 2**53 - 1)
time = st.sampled_from(
    [
        "0001-01-01T00:00:00Z",
        "2026-04-04T21:07:33.418205113+08:00",
        "2026-04-02T13:07:33Z",
        "2024-02-29T23:59:59.9-11:30",
        "9999-12-31T23:59:59.999999999Z",
    ]
)
# A large whole float is written without an exponent and so reads back as an integer; Go knows no difference.
number = st.floats(allow_nan=False, allow_infinity=False).filter(lambda item: abs(item) < 2**53 or abs(item) >= 1e21)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
unknown = st.dictionaries(st.from_regex(r"x-[a-z]{1,6}", fullmatch=True), json_value, max_size=2)


@st.composite
def sparse_records(draw: st.DrawFn) -> tuple[dict[str, str], int]:
    """The PAX records of a packed file, and the size of its blob."""
    runs = draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 2**20)), max_size=5))
    end, segments = 0, []
    for gap, length in runs:
        segments.append({"o": end + gap, "l": length})
        end += gap + length
    size = end + draw(st.integers(0 if segments else 1, 2**20))
    listed = json.dumps(segments, separators=(",", ":")) if segments else "null"
    return {"COCOON.sparse.map": listed, "COCOON.sparse.size": str(size)}, sum(length for _, length in runs)


@st.composite
def documents(draw: st.DrawFn, *, max_files: int = 7) -> dict[str, Any]:
    """A valid Epoch document as parsed JSON."""
    names = draw(st.lists(known_name | file_name, max_size=max_files, unique_by=str.lower))
    cut = draw(st.integers(0, len(names)))
    headers: dict[str, Any] = {}
    layers = [_file(draw, name, headers if draw(st.booleans()) else None) for name in names[:cut]]
    bases = [_file(draw, name, None) for name in names[cut:]]
    return {
        **({"schemaVersion": 1} if draw(st.booleans()) else {}),
        "name": draw(identity),
        "tag": draw(identity),
        draw(st.sampled_from(["snapshotId", "snapshotID"])): draw(text),
        **draw(_optional({"image": text, "imageBlobIDs": st.dictionaries(file_name, text, max_size=3)})),
        **draw(_optional(dict.fromkeys(("cpu", "memory", "storage", "nics", "totalSize"), amount))),
        "layers": layers or draw(st.sampled_from([None, []])),
        **({"baseImages": bases} if bases else {}),
        **draw(_optional({"createdAt": time, "pushedAt": time})),
        **({"layerHeaders": headers} if headers else {}),
        **draw(unknown),
    }


def _optional(members: dict[str, Any]) -> Any:
    return st.fixed_dictionaries({}, optional=members)


def _file(draw: st.DrawFn, name: str, headers: dict[str, Any] | None) -> dict[str, Any]:
    size = draw(st.just(0) | st.integers(1, 2**40))
    if headers is not None:
        records: dict[str, str] = {"mtime": "1775000000.5"}
        if draw(st.booleans()):
            packed, size = draw(sparse_records())
            records |= packed
        headers[name] = {"mode": draw(st.integers(0, 0o7777)), "paxRecords": records}
    digest = hashlib.sha256(f"{name}/{draw(st.integers(0, 3))}/{size}".encode()).hexdigest() if size else EMPTY_HEX
    members = {"digest": digest, "size": size, "filename": name}
    if draw(st.booleans()):
        members["mediaType"] = draw(media_type)
    return {**members, **draw(unknown)}


@st.composite
def spellings(draw: st.DrawFn, value: Any) -> bytes:
    """The bytes of `value` with some white space, some order of members and some escapes."""
    return json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
        sort_keys=draw(st.booleans()),
    ).encode("utf-8") + draw(st.sampled_from([b"", b"\n", b" \r\n"]))


@st.composite
def raw_documents(draw: st.DrawFn, *, max_files: int = 7) -> bytes:
    """The bytes of a valid Epoch document."""
    return draw(spellings(draw(documents(max_files=max_files))))
