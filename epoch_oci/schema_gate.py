"""A fast yes or no for a JSON Schema, so that a good document costs microseconds and only a bad one a full report.

Covers the keywords of JSON Schema 2020-12 that the schemas here use; for any other keyword `compile_gate` returns None
and the caller has to ask the full validator. Where the gate says yes, the full validator has no finding; the tests
hold the two to each other.
"""

import re
from collections.abc import Callable
from typing import Any

Gate = Callable[[Any], bool]
_NOTES = frozenset({"$schema", "$id", "$comment", "$defs", "title", "description", "examples", "then", "else"})
_TYPES: dict[str, Gate] = {
    "object": lambda value: type(value) is dict,
    "array": lambda value: type(value) is list,
    "string": lambda value: type(value) is str,
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: type(value) is bool,
    "null": lambda value: value is None,
}


class _UnsupportedError(Exception):
    """A keyword that is not known here."""


def compile_gate(schema: dict[str, Any]) -> Gate | None:
    """A predicate that is true just for the values `schema` allows, None when it uses a keyword not known here."""
    try:
        return _Compiler(schema).rule(schema)
    except _UnsupportedError:
        return None


class _Compiler:
    def __init__(self, root: dict[str, Any]) -> None:
        self._definitions = root.get("$defs", {})
        self._compiled: dict[str, Gate] = {}

    def rule(self, rule: Any) -> Gate:
        """The gate of one (sub)schema."""
        if rule is True or rule == {}:
            return lambda value: True
        if rule is False:
            return lambda value: False
        checks = [self._keyword(name, rule) for name in rule if name not in _NOTES]
        return checks[0] if len(checks) == 1 else _all(checks)

    def _keyword(self, name: str, rule: dict[str, Any]) -> Gate:
        make = getattr(self, f"_on_{name.lstrip('$')}", None)
        if make is None:
            raise _UnsupportedError(name)
        gate: Gate = make(rule[name], rule)
        return gate

    def _on_ref(self, reference: str, _: dict[str, Any]) -> Gate:
        if not reference.startswith("#/$defs/"):
            raise _UnsupportedError(reference)
        name = reference.removeprefix("#/$defs/")
        if name not in self._compiled:
            self._compiled[name] = lambda value: self._compiled[name](value)
            self._compiled[name] = self.rule(self._definitions[name])
        return self._compiled[name]

    def _on_type(self, wanted: str | list[str], _: dict[str, Any]) -> Gate:
        if isinstance(wanted, str):
            return _TYPES[wanted]
        allowed = [_TYPES[name] for name in wanted]
        return lambda value: any(test(value) for test in allowed)

    def _on_const(self, wanted: Any, _: dict[str, Any]) -> Gate:
        return lambda value: _equal(value, wanted)

    def _on_enum(self, wanted: list[Any], _: dict[str, Any]) -> Gate:
        return lambda value: any(_equal(value, one) for one in wanted)

    def _on_pattern(self, pattern: str, _: dict[str, Any]) -> Gate:
        search = re.compile(pattern).search
        return lambda value: type(value) is not str or search(value) is not None

    def _on_minimum(self, least: float, _: dict[str, Any]) -> Gate:
        return lambda value: type(value) not in (int, float) or value >= least

    def _on_maximum(self, most: float, _: dict[str, Any]) -> Gate:
        return lambda value: type(value) not in (int, float) or value <= most

    def _on_minItems(self, least: int, _: dict[str, Any]) -> Gate:  # noqa: N802
        return lambda value: type(value) is not list or len(value) >= least

    def _on_maxItems(self, most: int, _: dict[str, Any]) -> Gate:  # noqa: N802
        return lambda value: type(value) is not list or len(value) <= most

    def _on_required(self, names: list[str], _: dict[str, Any]) -> Gate:
        return lambda value: type(value) is not dict or all(name in value for name in names)

    def _on_properties(self, members: dict[str, Any], _: dict[str, Any]) -> Gate:
        gates = [(name, self.rule(rule)) for name, rule in members.items()]

        def gate(value: Any) -> bool:
            return type(value) is not dict or all(test(value[name]) for name, test in gates if name in value)

        return gate

    def _on_additionalProperties(self, rule: Any, around: dict[str, Any]) -> Gate:  # noqa: N802
        if "patternProperties" in around:
            raise _UnsupportedError("patternProperties")
        known, test = around.get("properties", {}), self.rule(rule)

        def gate(value: Any) -> bool:
            return type(value) is not dict or all(test(member) for name, member in value.items() if name not in known)

        return gate

    def _on_propertyNames(self, rule: Any, _: dict[str, Any]) -> Gate:  # noqa: N802
        test = self.rule(rule)
        return lambda value: type(value) is not dict or all(map(test, value))

    def _on_dependentRequired(self, needs: dict[str, list[str]], _: dict[str, Any]) -> Gate:  # noqa: N802
        def gate(value: Any) -> bool:
            return type(value) is not dict or all(
                other in value for name, others in needs.items() if name in value for other in others
            )

        return gate

    def _on_dependentSchemas(self, rules: dict[str, Any], _: dict[str, Any]) -> Gate:  # noqa: N802
        gates = [(name, self.rule(rule)) for name, rule in rules.items()]
        return lambda value: type(value) is not dict or all(test(value) for name, test in gates if name in value)

    def _on_items(self, rule: Any, around: dict[str, Any]) -> Gate:
        test, first = self.rule(rule), len(around.get("prefixItems", ()))
        return lambda value: type(value) is not list or all(map(test, value[first:] if first else value))

    def _on_prefixItems(self, rules: list[Any], _: dict[str, Any]) -> Gate:  # noqa: N802
        gates = [self.rule(rule) for rule in rules]
        return lambda value: (
            type(value) is not list or all(test(item) for test, item in zip(gates, value, strict=False))
        )

    def _on_contains(self, rule: Any, around: dict[str, Any]) -> Gate:
        if "minContains" in around or "maxContains" in around:
            raise _UnsupportedError("minContains")
        test = self.rule(rule)
        return lambda value: type(value) is not list or any(map(test, value))

    def _on_not(self, rule: Any, _: dict[str, Any]) -> Gate:
        test = self.rule(rule)
        return lambda value: not test(value)

    def _on_if(self, rule: Any, around: dict[str, Any]) -> Gate:
        test = self.rule(rule)
        yes, no = self.rule(around.get("then", True)), self.rule(around.get("else", True))
        return lambda value: yes(value) if test(value) else no(value)


def _all(checks: list[Gate]) -> Gate:
    def gate(value: Any) -> bool:
        for check in checks:  # noqa: SIM110 (a generator costs a third of the time here)
            if not check(value):
                return False
        return True

    return gate


def _equal(one: Any, other: Any) -> bool:
    """JSON equality: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
