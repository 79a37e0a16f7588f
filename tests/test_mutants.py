"""The changes that must be noticed still apply to the code; the long tests try them."""

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_mutant_still_applies(mutant):
    assert mutant.applies(), f"{mutant.file} has changed: say in tests/mutants.py how it would go wrong now"
    assert mutant.old != mutant.new


@pytest.mark.long
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_quick_test_notices(mutant):
    assert not mutants.survives(mutant), mutant.name
