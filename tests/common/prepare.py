"""transformers' common model tests, from the source distribution of the installed version.

Run as a script, it prints the folder that TRANSFORMERS_TESTS has to name. A wheel carries no tests, and the source
distribution leaves out three modules that the common ones import; small stand-ins are written for those.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from transformers import __version__

FOLDER = Path(__file__).parents[2] / ".venv" / "transformers-tests" / __version__

NEEDED = {"test_modeling_common.py": "class ModelTesterMixin", "test_configuration_common.py": "class ConfigTester"}
STAND_INS = {
    "__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": """\
# Values that differ from the defaults, for the fields that every configuration has.
config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["SomeModel"],
    "id2label": {0: "first", 1: "second", 2: "third"},
    "label2id": {"first": 0, "second": 1, "third": 2},
    "problem_type": "regression",
}
""",
}


def download(folder: Path) -> Path:
    """Fetch the source distribution with pip, which checks its sha256; return its path in `folder`."""
    requirement = f"transformers=={__version__}"
    command = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers", "--dest", folder]
    subprocess.run([sys.executable, *command, requirement], check=True, stdout=sys.stderr)
    return next(folder.glob("transformers-*.tar.gz"))


def unpack(archive: Path, folder: Path) -> None:
    """Write what lies under `tests/` in `archive` to `folder`, and a stand-in for each module that it lacks.

    Raises ValueError for an archive of another version or without the common tests.
    """
    prefix = f"transformers-{__version__}/tests/"
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(prefix):
                tar.extract(member.replace(name=member.name.removeprefix(prefix), deep=False), folder, filter="data")
    for name, text in NEEDED.items():
        if not (folder / name).is_file() or text not in (folder / name).read_text(encoding="utf-8"):
            raise ValueError(f"{archive.name} must hold {prefix}{name} with `{text}`; it does not.")
    for name, text in STAND_INS.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def prepare(folder: Path = FOLDER) -> Path:
    """The folder with the tests of the installed transformers; downloads them if it is not there yet."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            unpack(download(Path(work)), Path(work) / "tests")
            (Path(work) / "tests").rename(folder)
    return folder


if __name__ == "__main__":
    print(prepare())
