"""A virtual environment that holds some installed packages, what they require, and nothing else: no package of ours."""

import importlib.metadata
import venv

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def requirements(names):
    """The installed distributions of these names and of all that they require, by name."""
    found, waiting = {}, [*names]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # required elsewhere, such as CUDA
            continue
        wanted = [Requirement(line) for line in found[name].requires or []]
        waiting += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def clean_environment(folder, *names):
    """Make it in `folder`, of links to what is installed here; return its Python."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python3*/site-packages")
    for distribution in requirements(names).values():
        parts = {path.parts[0] for path in distribution.files or []}
        for part in parts - {"..", "__pycache__"}:
            if not (packages / part).exists():
                (packages / part).symlink_to(distribution.locate_file(part))
    return folder / "bin" / "python"
