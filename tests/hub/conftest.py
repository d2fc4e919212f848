"""Python for a stranger: virtual environments with all of ours but some packages."""

import subprocess
import sys
from pathlib import Path

import pytest

DEPENDENT = {"timm": ("sentence_transformers",)}  # what cannot be imported without it


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """`bare_python("timm", ...)`: the interpreter of a virtual environment without these packages and without hf_mhex.

    Its packages are links to ours, one by one, so that nothing is downloaded and nothing else is on its path.
    """
    made = {}

    def make(*without):
        if without not in made:
            home = tmp_path_factory.mktemp("bare")
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
            [site] = home.glob("lib/python*/site-packages")
            barred = ["hf_mhex", "__editable__", *without]
            barred += [name for package in without for name in DEPENDENT.get(package, ())]
            for folder in (Path(entry) for entry in sys.path if Path(entry).name == "site-packages"):
                for path in folder.iterdir():
                    unwanted = path.name.lower().startswith(tuple(barred)) or path.suffix == ".pth"
                    if not (unwanted or (site / path.name).exists()):
                        (site / path.name).symlink_to(path)
            made[without] = home / "bin" / "python"
        return made[without]

    return make
