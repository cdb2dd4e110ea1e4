"""Data and texts for the tests of the explorer."""

import json
import re

#: Texts that would change the page if they were markup.
WICKED = [
    "<script>document.title = 'gone'</script>",
    "</script><b>",
    "<img src=x onerror=alert(1)>",
]
WICKED += ['"&amp;\u2028', "$title"]


def read_data(path):
    """Return the data of a page."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(pattern, path.read_text())[1])
