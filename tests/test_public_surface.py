"""What `import epoch_oci` offers."""

import ast
import dataclasses
import importlib
import inspect
import json
import pickle
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from snapshots import make_snapshot, open_store, put_snapshot

import epoch_oci
from epoch_oci.errors import UsageError
from epoch_oci.options import Checked

HEAVY = ("requests", "urllib3", "oras", "obstore", "jsonschema", "jsonschema_rs", "argcomplete", "rich")


def test_every_public_name_is_there():
    for name in epoch_oci.__all__:
        assert getattr(epoch_oci, name) is not None
    assert epoch_oci.__all__ == sorted(set(epoch_oci.__all__))
    assert set(epoch_oci.__all__) <= set(dir(epoch_oci))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(epoch_oci.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(seen) == epoch_oci.__all__
    for name, module in seen.items():
        found = inspect.unwrap(getattr(epoch_oci, name))
        expected = importlib.import_module(f"epoch_oci.{name}") if module == "epoch_oci" else None
        assert found is (expected or getattr(importlib.import_module(module), name))


HANDED_OUT = {"Assembly", "RemoteFile"}
"""Classes whose objects users are given and never make."""
API = Path(__file__).parent.parent / "docs/api"


@cache
def classes() -> dict[str, list[type]]:
    """Every class of the package that is not private, by name."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(epoch_oci.__path__, "epoch_oci."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(value) and value.__module__ == module.name:
                    found.setdefault(name, []).append(value)
    return found


def annotations(name: str, public: object) -> Iterator[tuple[str, object]]:
    """Where a public function or class says a type, and what it says."""
    if inspect.isfunction(public):
        yield from ((f"{name}({word})", said) for word, said in public.__annotations__.items())
    for base in public.__mro__ if inspect.isclass(public) else ():
        if not base.__module__.startswith("epoch_oci"):
            continue
        fields = vars(base).get("__annotations__", {})
        yield from ((f"{name}.{word}", said) for word, said in fields.items() if word[0] != "_")
        for word, value in vars(base).items():
            called = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            made = word == "__init__" and name not in HANDED_OUT and not hasattr(base, "__dataclass_fields__")
            if inspect.isfunction(called) and (made or word[0] != "_"):
                yield from annotations(f"{name}.{word}", called)


def test_every_type_in_a_public_signature_is_public():
    public = {name: getattr(epoch_oci, name) for name in epoch_oci.__all__}
    exported = [value for value in public.values() if inspect.isclass(value)]
    missing = []
    for name, value in public.items():
        for place, said in annotations(name, value):
            text = said if isinstance(said, str) else said.__name__ if inspect.isclass(said) else str(said)
            for word in re.findall(r"\b[A-Za-z_]\w+", text):
                meant = classes().get(word, [])
                if meant and not any(each in exported for each in meant):
                    missing.append(f"{place}: {word}")
    assert missing == []


def test_every_public_name_has_its_place_in_the_reference():
    said = re.findall(
        r"^\.\. auto\w+:: ([\w.]+)", "\n".join(page.read_text() for page in API.glob("*.md")), re.MULTILINE
    )
    names = [name for name in epoch_oci.__all__ if not inspect.ismodule(getattr(epoch_oci, name))]
    assert sorted(name for name in said if "." not in name) == names


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = epoch_oci.nonsense
    with pytest.raises(ImportError):
        exec("from epoch_oci import nonsense")


def test_values_load_no_heavy_module():
    code = (
        "import sys, json, epoch_oci\n"
        "epoch_oci.Digest.of(b''), epoch_oci.Document, epoch_oci.Manifest, epoch_oci.UsageError, epoch_oci.locate\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []


def test_the_library_in_a_few_lines(tmp_path):
    made = make_snapshot("W3b")
    assert epoch_oci.to_epoch(epoch_oci.to_oci(made.raw)).raw == made.raw
    put_snapshot(tmp_path / "store", made)
    layout = f"oci:{tmp_path}/layout:v2"
    report = epoch_oci.push("team/bot:v1", to=layout, store=tmp_path / "store")
    assert report.digest == epoch_oci.to_oci(made.raw).manifest.digest
    epoch_oci.pull(layout, tmp_path / "second")
    assert open_store(tmp_path / "second").resolve("team/bot:v2").raw == made.raw
    assert epoch_oci.pull(f"oci:{tmp_path}/layout", files=tmp_path / "files").transferred
    assert (tmp_path / "files/state.json").read_bytes() == made.blobs[epoch_oci.Digest.of(b'{"state":1}' * 50).hex]
    assert [str(row.key) for row in epoch_oci.list_snapshots(tmp_path / "second")] == ["team/bot:v2"]
    for seen in (epoch_oci.inspect(layout), epoch_oci.inspect("team/bot:v1", store=tmp_path / "store")):
        assert (seen.kind, seen.manifest.document.raw) == ("snapshot", made.raw)
    for place in (layout, f"oci:{tmp_path}/layout", tmp_path / "second"):
        found = epoch_oci.verify(place)
        assert found.ok and found.blobs


def test_words_that_cannot_be_meant_are_usage_errors(tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot())
    layout, digest = f"oci:{tmp_path}/layout:v2", f"sha256:{'0' * 64}"
    for wrong in (
        lambda: epoch_oci.push("team/bot:v1", to=tmp_path / "store", store=tmp_path / "store"),
        lambda: epoch_oci.push("team/bot:v1", to=f"{layout}@{digest}", store=tmp_path / "store"),
        lambda: epoch_oci.pull(layout),
        lambda: epoch_oci.pull(layout, tmp_path / "store", files=tmp_path / "files"),
        lambda: epoch_oci.inspect(tmp_path / "store"),
        lambda: epoch_oci.inspect("team/bot:v1"),
    ):
        with pytest.raises(epoch_oci.UsageError):
            wrong()
    assert not (tmp_path / "layout").exists()


def every_options_class() -> list[type]:
    public = [getattr(epoch_oci, name) for name in epoch_oci.__all__]
    return [each for each in public if inspect.isclass(each) and issubclass(each, Checked)]


def made(kind: type, **given: object) -> object:
    """Options with what has no default, too."""
    needed = {"level": 1, "chunk_size": 1 << 20, "spool": "/var/tmp"} if kind.__name__ == "Encoding" else {}
    return kind(**{**needed, **given})


@pytest.mark.parametrize("kind", every_options_class(), ids=lambda kind: kind.__name__)
def test_a_wrong_option_is_a_usage_error_that_names_it(kind):
    wrong = {object(), "a text", b"bytes", 3.5, -1, True, None}
    for field in dataclasses.fields(kind):
        refused = 0
        for value in wrong:
            try:
                made(kind, **{field.name: value})
            except epoch_oci.UsageError as error:
                refused += 1
                assert error.object == field.name and field.name in str(error)
                assert "a text" not in str(error)
        assert refused >= 2, field.name
    made(kind)


def functions() -> dict[str, Callable]:
    return {name: found for name in epoch_oci.__all__ if inspect.isfunction(found := getattr(epoch_oci, name))}


@pytest.mark.parametrize("name", sorted(functions()))
def test_a_public_function_called_wrongly_says_which_argument_it_is(name):
    """Of what is required everything is wrong, and of the rest one after the other, so that nothing ever begins."""
    function = functions()[name]
    parameters = inspect.signature(function).parameters.values()
    required = {each.name for each in parameters if each.default is each.empty and each.kind != each.VAR_POSITIONAL}
    for parameter in parameters:
        with pytest.raises(UsageError) as raised:
            if parameter.kind is parameter.VAR_POSITIONAL:
                function(object())
            else:
                function(**dict.fromkeys(required | {parameter.name}, object()))
        assert raised.value.object in {each.name for each in parameters} and name in str(raised.value)
    assert inspect.getdoc(function) and function.__name__ == name
    assert pickle.loads(pickle.dumps(function)) is function  # for whoever has other processes do it


def test_an_argument_is_held_by_its_own_annotation(tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot("W3b"))
    right = {"word": "team/bot:v1", "store": tmp_path / "store"}
    assert epoch_oci.inspect(**right).to_json()["name"] == "team/bot"
    for wrong in (7, b"x", ["a"], print):
        for name in right:
            with pytest.raises(UsageError) as raised:
                epoch_oci.inspect(**{**right, name: wrong})
            assert raised.value.object == name
    for empty in ("", "a\0b"):
        with pytest.raises(UsageError):
            epoch_oci.inspect("team/bot:v1", store=empty)
        with pytest.raises(UsageError):
            epoch_oci.pull("oci:layout:v1", files=empty)
    with pytest.raises(UsageError):
        epoch_oci.verify(tmp_path / "store", options=epoch_oci.PullOptions())
    with pytest.raises(UsageError):
        epoch_oci.remove("team/bot:v1", store=tmp_path / "store", dry_run="no")
    with pytest.raises(UsageError):
        epoch_oci.register_dialect(tmp_path)
    with pytest.raises(TypeError):
        epoch_oci.inspect()
    assert not (tmp_path / "cow.raw").exists() and list(tmp_path.iterdir()) == [tmp_path / "store"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: epoch_oci.PushOptions(jobs=0),
        lambda: epoch_oci.PullOptions(jobs=1000),
        lambda: epoch_oci.PullOptions(only="*.json"),
        lambda: epoch_oci.PullOptions(seeds=("/data/epoch",)),
        lambda: epoch_oci.PushOptions(annotations={"a": 1}),
        lambda: epoch_oci.PushOptions(encoding={"level": 3}),
        lambda: epoch_oci.PushOptions(throttle=1 << 20),
        lambda: epoch_oci.Chunking(level=20),
        lambda: epoch_oci.Connection(trusted_hosts="ghcr.io"),
        lambda: epoch_oci.Connection(retry_for=-1),
        lambda: epoch_oci.Throttle(0),
        lambda: epoch_oci.Throttle("50M"),
    ],
)
def test_options_that_are_easily_taken_for_right(make):
    with pytest.raises(epoch_oci.UsageError):
        make()


def test_options_take_paths_and_lists_in_any_form(tmp_path):
    assert epoch_oci.PushOptions(part_cache=str(tmp_path)) == epoch_oci.PushOptions(part_cache=tmp_path)
    assert epoch_oci.PullOptions(only=["a", "b"]) == epoch_oci.PullOptions(only=("a", "b"))
    assert epoch_oci.Connection(trusted_hosts={"a"}).trusted_hosts == frozenset({"a"})
    assert epoch_oci.Connection(ca_file=tmp_path / "ca.pem").ca_file == str(tmp_path / "ca.pem")


def module_level(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that loading a module runs: neither those within functions nor those for type checkers alone."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                yield from module_level(node.orelse)
            else:
                blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
                blocks += [handler.body for handler in getattr(node, "handlers", [])]
                yield from (found for block in blocks for found in module_level(block))


def imported(node: ast.Import | ast.ImportFrom, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that one import names."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{name}" if f"{node.module}.{name}" in modules else f"{node.module}" for name in names]
    yield from (name for name in names if name in modules)


def test_no_two_modules_import_each_other_in_a_circle():
    root = Path(epoch_oci.__file__).parent
    modules = {
        ".".join(("epoch_oci", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    assert len(modules) > 100
    graph = {
        name: {other for node in module_level(ast.parse(path.read_text()).body) for other in imported(node, modules)}
        for name, path in modules.items()
    }
    assert graph["epoch_oci.stores.base"] >= {"epoch_oci.errors", "epoch_oci.oci.digest"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
