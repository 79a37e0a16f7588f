"""Every trap has a test that is there, or a reason; the page in docs/ says the same."""

import ast
from functools import cache
from pathlib import Path

import traps

HERE = Path(__file__).parent


@cache
def functions(name: str) -> frozenset[str]:
    """The test functions of a file, those of classes too."""
    tree = ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_are_forty_five():
    assert [row.number for row in traps.TRAPS] == list(range(1, 46))


def test_each_has_a_test_that_is_there(subtests):
    for row in traps.TRAPS:
        with subtests.test(row=row):
            assert row.tests, f"trap {row.number} has none"
            for test in row.tests:
                name, function = test.split("::")
                assert function in functions(name), test


def test_the_page_is_what_the_table_says():
    assert (HERE.parent / "docs/traps.md").read_text(encoding="utf-8") == traps.page(), (
        "python tests/traps.py > docs/traps.md"
    )
