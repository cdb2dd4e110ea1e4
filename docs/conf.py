"""Sphinx configuration of the site: user guide, gallery and reference.

``make docs`` builds the site. Its source folder is the repository, so that links from the guide to
other files of the repository also work on the site.
"""

import inspect
from importlib import metadata

from docutils import nodes
from sphinx_gallery.sorting import FunctionSortKey

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
    "sphinx-mathjax-offline",  # Formulas are displayed without internet access, too.
]
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/**.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = ["docs/_*", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]

# Markdown files use only syntax that GitHub displays, too.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "python"

# The reference contains every public name, with the methods that this package documents.
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

#: Examples in the order of the gallery: quickstart, tables and texts, neighbours and density,
#: kernels, labels, attribution, active learning, training.
EXAMPLES = [
    "plot_quickstart.py",
    "plot_films.py",
    "plot_reviews.py",
    "plot_reasons.py",
    "plot_retrieval.py",
    "plot_sequences.py",
    "plot_words.py",
    "plot_threshold.py",
    "plot_sine_density.py",
    "plot_kernel_machine.py",
    "plot_label_issues.py",
    "plot_denoising.py",
    "plot_fit.py",
    "plot_attribution.py",
    "plot_leaving_out.py",
    "plot_active_learning.py",
    "plot_invariance.py",
    "plot_similarity_training.py",
]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "docs/auto_examples",
    "doc_module": ("sknetsim",),
    "reference_url": {"sknetsim": None},
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "download_all_examples": False,
    # Sphinx can pickle a bound method, and detects a new order by the text of the key.
    "within_subsection_order": FunctionSortKey(EXAMPLES.index, str(EXAMPLES)),
}


def _skip_other_packages(app, what, name, member, skip, options):
    """Skip methods of other packages, such as scikit-learn's, which document them themselves."""
    function = inspect.unwrap(member) if callable(member) else member
    module = getattr(function, "__module__", None)
    return True if module and not module.startswith("sknetsim") else None


def _remove_blank_ends(app, doctree):
    """Remove the blank line that ends a doctest in a Markdown file."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip("\n")
        block.rawsource, block[:] = text, [nodes.Text(text)]


def setup(app):
    """Connect the functions above to Sphinx."""
    app.connect("autodoc-skip-member", _skip_other_packages)
    app.connect("doctree-read", _remove_blank_ends)
