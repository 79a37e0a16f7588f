"""The changes that must be noticed still apply to the code; the long tests try them."""

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_mutant_still_applies(mutant):
    assert mutant.applies(), f"{mutant.file} has changed: say in tests/mutants.py how it would go wrong now"
    assert mutant.old != mutant.new


def test_the_page_names_each_and_a_test_that_is_there():
    page = (mutants.ROOT / "docs/mutants.md").read_text(encoding="utf-8")
    for mutant in mutants.MUTANTS:
        row = next(line for line in page.splitlines() if line.startswith(f"| {mutant.name} |"))
        file, _, function = row.split("`")[1].partition("::")
        assert f"def {function}(" in (mutants.ROOT / f"tests/{file}.py").read_text(encoding="utf-8"), row


@pytest.mark.long
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_quick_test_notices(mutant):
    assert not mutants.survives(mutant), mutant.name
