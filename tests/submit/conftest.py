"""What the tests of submit/ stand on: whole archives of the tiny presenter, packed once."""

import pytest

from tests.submissions import only_wheels, pack_tiny, write_wheels


@pytest.fixture(scope="session")
def packed(tiny_file, tiny_built, alone, tmp_path_factory):
    """A folder with submit.zip, wheels.zip and, for pip to take wheels from, index/."""
    with alone("packed") as root, pytest.MonkeyPatch.context() as patch:
        if (root / "packed").exists():
            return root / "packed"
        folder = tmp_path_factory.mktemp("packed")
        patch.setenv("VIVACE_BUILT", str(tiny_built))
        only_wheels(patch, write_wheels(folder / "index"))
        pack_tiny(tiny_file, folder / "submit.zip")
        pack_tiny(tiny_file, folder / "wheels.zip", wheels=True)
        return folder.rename(root / "packed")
