"""Settings of the site, built by `make docs` from the checkout's root, so that pages link to tables in results/."""

import re

import hf_mhex

project = "hf-mhex"
author = "The hf-mhex developers"
copyright = author
version = release = hf_mhex.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/**", "results/**.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
exclude_patterns = [".*", "outputs", "build", "dist", "tests", "**/.ipynb_checkpoints"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook runs anew when its code has changed
nb_execution_cache_path = "outputs/site-notebooks"
nb_execution_timeout = 900  # seconds a cell
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "none"  # signatures and shapes in the docstrings say it already
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# Bases and types of other libraries are named; no inventory of theirs can be fetched without a network.
nitpick_ignore_regex = [(r"py:.*", r".*")]


html_theme = "furo"
html_title = f"hf-mhex {release}"
html_extra_path = ["redirect"]
copybutton_prompt_text = "$ "


def as_text(app, what, name, found, options, lines):
    """Docstrings are plain text: paragraphs keep their words and code, and what is indented stands as it is written."""
    made = []
    for part in re.split(r"\n\s*\n", "\n".join(lines).strip()):
        rows = part.split("\n")
        if any(row.startswith(" ") for row in rows):
            made += ["::", "", *("    " + row for row in rows), ""]
            continue
        pieces = part.split("`")
        if len(pieces) % 2 == 0:  # one backtick alone is no code
            pieces = [part.replace("`", "'")]
        code = [
            f"``{piece}``\\ " if number % 2 else re.sub(r"([\\\\*|_])", r"\\\1", piece)
            for number, piece in enumerate(pieces)
        ]
        made += ["".join(code).replace("\n", " "), ""]
    lines[:] = made


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_text)
