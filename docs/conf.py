"""The site: guide, gallery and reference; the repository is its source, so that links hold.

Run by ``make docs``.
"""

import inspect
from importlib import metadata

from docutils import nodes

project = "sknetsim"
author = copyright = "The sknetsim developers"
release = version = metadata.version(project)

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",  # The site is whole without a network.
]
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/**.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = ["docs/_*", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]

# Texts: as they are read elsewhere too.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "python"

# The reference: every public name, with the methods that are documented in this package.
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "inherited-members": True,
    "special-members": "__call__",
}
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "py:obj"

html_title = project
html_theme = "pydata_sphinx_theme"
html_extra_path = ["_extra"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"docs/index": []}
html_copy_source = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "docs/auto_examples",
    "ignore_pattern": "^_",
    "doc_module": ("sknetsim",),
    "reference_url": {"sknetsim": None},
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
}


def _is_elsewhere(app, what, name, member, skip, options):
    """scikit-learn's methods are described in scikit-learn's own reference."""
    function = inspect.unwrap(member) if callable(member) else member
    module = getattr(function, "__module__", None)
    return True if module and not module.startswith("sknetsim") else None


def _without_blank_ends(app, doctree):
    """Doctests in texts end with a blank line, which need not be shown."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip("\n")
        block.rawsource, block[:] = text, [nodes.Text(text)]


def setup(app):
    """Leave out what is not of this package, or says nothing."""
    app.connect("autodoc-skip-member", _is_elsewhere)
    app.connect("doctree-read", _without_blank_ends)
