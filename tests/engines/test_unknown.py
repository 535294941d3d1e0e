"""A name that is not known is answered with the one that was meant, or with all."""

import pytest

from engines.errors import unknown


@pytest.mark.parametrize(("name", "hint"), [
    ("fp61", "did you mean 'fp16'?"), ("quick", "known: fp32, fp16"), ("", "known: fp32, fp16")])
def test_the_nearest_known_name_is_offered_or_all_of_them_in_their_order(name, hint):
    assert unknown("precision", name, iter(["fp32", "fp16"])) == f"unknown precision {name!r}; {hint}"
