"""Settings of the site, built by `make docs` from the checkout's root, so that pages link to tables in results/."""

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
nb_execution_timeout = 240  # seconds a cell
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "none"  # signatures and shapes in the docstrings say it already
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpicky = True
# What annotations and bases of other libraries name; no inventory can be fetched without a network.
nitpick_ignore_regex = [(r"py:.*", r"(?!hf_mhex\.).*")]


html_theme = "furo"
html_title = f"hf-mhex {release}"
html_extra_path = ["redirect"]
copybutton_prompt_text = "$ "
