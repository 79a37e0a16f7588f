"""Our dataclasses beside those of the standard library: whatever one does, the other does."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import field

import pytest

from epoch_oci.dataclass import dataclass


class Fields:
    """Defaults, factories, and what is not compared, not shown or not given."""

    name: str
    size: int = 0
    tags: list[str] = field(default_factory=list, hash=False)
    secret: str = field(default="", repr=False, kw_only=True)
    note: str = field(default="", compare=False, kw_only=True)
    made: dict[str, int] = field(default_factory=dict, init=False, hash=False)
    said: str = field(default="x", init=False)
    unset: int = field(init=False, repr=False, compare=False)

    def twice(self):
        return 2 * self.size


class Own:
    """A class with words of its own."""

    size: int

    def __post_init__(self):
        object.__setattr__(self, "size", abs(self.size))

    def __eq__(self, other):
        return abs(other.size - self.size) < 2

    def __repr__(self):
        return f"<{self.size}>"


class Nothing:
    pass


def both(body, **options):
    """The same class by the standard library and by us, each from a body of its own."""
    made = []
    for decorator in (dataclasses.dataclass, dataclass):
        members = {name: value for name, value in vars(body).items() if name not in ("__dict__", "__weakref__")}
        members = {
            name: copy.copy(each) if isinstance(each, dataclasses.Field) else each for name, each in members.items()
        }
        made.append(decorator(slots=True, **options)(type(body.__name__, (), members)))
    return made


def told(call):
    """What a call gives, or what it fails with."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


OPTIONS = [{}, {"frozen": True}, {"kw_only": True}, {"frozen": True, "order": True}]
CALLS = [
    lambda kind: repr(kind(name="a", size=3, secret="s", note="n")),
    lambda kind: repr(kind("a", 3)),
    lambda kind: kind(),
    lambda kind: kind(name="a", said="y"),
    lambda kind: kind(name="a") == kind(name="a", note="other"),
    lambda kind: kind(name="a") == kind(name="a", secret="other"),
    lambda kind: kind(name="a") == "a",
    lambda kind: hash(kind(name="a", tags=["t"])) == hash(kind(name="a", note="n")),
    lambda kind: kind(name="a") < kind(name="b"),
    lambda kind: kind(name="b", size=1) >= kind(name="b", size=2),
    lambda kind: kind(name="a") < "b",
    lambda kind: kind(name="a").tags is kind(name="a").tags,
    lambda kind: kind(name="a").unset,
    lambda kind: setattr(kind(name="a"), "name", "b"),
    lambda kind: delattr(kind(name="a"), "name"),
    lambda kind: dataclasses.asdict(dataclasses.replace(kind(name="a"), size=2)),
    lambda kind: dataclasses.replace(kind(name="a"), made={}),
    lambda kind: [each.name for each in dataclasses.fields(kind)],
    lambda kind: (kind.__match_args__, kind.__slots__, kind.__doc__, kind.__qualname__, kind.__init__.__qualname__),
    lambda kind: str(inspect.signature(kind)),
    lambda kind: kind.__init__.__annotations__,
    lambda kind: kind(name="a", size=4).twice(),
    lambda kind: vars(kind)["twice"].__name__,
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_a_dataclass_is_one_of_the_standard_library_to_its_users(options, call):
    standard, ours = both(Fields, **options)
    assert told(lambda: call(ours)) == told(lambda: call(standard))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_methods_of_its_own_are_kept(options):
    for kind in both(Own, **options):
        one = told(lambda kind=kind: kind(size=-3))
        assert repr(one) == "<3>" and one == kind(size=4)
        assert (kind.__hash__ is None) == (not options.get("frozen"))


def test_a_class_without_fields():
    standard, ours = both(Nothing, frozen=True)
    assert (repr(ours()), ours() == ours(), hash(ours())) == (repr(standard()), True, hash(standard()))


@dataclass(frozen=True, slots=True)
class Base:
    """A value that others build upon."""

    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Base):
    """A value with more in it."""

    name: str


class Wrapped(Derived):
    """No dataclass."""


def test_derived_classes_have_the_fields_of_both():
    value = Derived(3, name="a")
    assert repr(value) == "Derived(size=3, name='a')" and value != Base(3) and Derived.__slots__ == ("name",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.size = 4
    with pytest.raises(AttributeError):
        value.more = 4


def test_a_class_derived_without_the_decorator_may_have_attributes_of_its_own():
    value = Wrapped(3, name="a")
    value.more = 1
    del value.more
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.name = "b"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_and_pickles_are_equal(again):
    value = Derived(3, name="a")
    assert again(value) == value and again(value) is not value


def test_a_value_that_holds_itself_can_be_shown():
    held = []
    value = both(Fields)[1](name="a", tags=held)
    held.append(value)
    assert "..." in repr(value)
