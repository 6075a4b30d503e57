"""Words that data sets contain whoever the patients are, for which files are therefore not searched."""

from __future__ import annotations

import re
from functools import cache

from lungmix.mixture import PUBLISHED
from lungmix.publish.about import LICENSES, About, Creator, license_file_text
from lungmix.publish.croissant import RECORD_SETS, croissant_text
from lungmix.publish.datacite import UNKNOWN_PUBLISHER, Release, datacite_text
from lungmix.publish.folder import path_of
from lungmix.publish.opening import opening_texts
from lungmix.publish.rocrate import MEDIA_TYPES, rocrate_text
from lungmix.publish.tables import DESCRIBED
from lungmix.publish.texts import FIXED_TEXT, changes_text, citation_text, readme_text, search_text
from lungmix.store.models import ModelUse
from lungmix.store.schema import LABEL_MAPS
from lungmix.webpage.overview import CohortOverview

_DAY = "2000-01-01"
_WORD = re.compile(r"\w+")
_MORE = "float integer text; median, lower to upper quartile, means, medians, quartiles; tells; for tests; score_by"
"""Words of texts that need values: types of columns, notes of Table 1, and the sentence about the split."""


@cache
def ordinary_words() -> frozenset[str]:
    """Return the words of all texts and metadata of a data set without values, in small letters."""
    person, organisation = Creator("0, 0", "0", "0000-0002-1825-0097"), Creator("0", "0")
    about = About("0", "0", next(iter(LICENSES)), (person, organisation), publisher="0", doi="10.0000/0")
    overview = CohortOverview("", [], [], 0, 0, ModelUse(None))
    row, image = {column.key: 0 for column in DESCRIBED}, path_of("0", "ct")
    tables = {file: [row] for file in RECORD_SETS}
    texts = [
        FIXED_TEXT,
        _MORE,
        UNKNOWN_PUBLISHER,
        *LABEL_MAPS,
        *(
            readme_text(about, overview, rows, PUBLISHED.to_json(), {}, _DAY, {"0": ""}, "")
            for rows in ([], [row], [row | {"flags": 1}])
        ),
        *(search_text(scans, 2, 2, ["0"]) for scans in (None, 2)),
        citation_text(about, _DAY),
        changes_text(about, _DAY, [], None),
        croissant_text(about, "", _DAY, dict.fromkeys(RECORD_SETS, ""), tables, {}),
        *(
            metadata
            for previous in (Release("0", "0"), Release("0", "0", "10.0000/0"))
            for metadata in (
                datacite_text(about, "", "", _DAY, ["scans bytes"], list(MEDIA_TYPES.values()), previous),
                rocrate_text(about, "", "", _DAY, {image: "0"}, {image: 0}, {image: "0"}, previous),
            )
        ),
        *opening_texts(about, "", _DAY, [], []).values(),
        *(f"{name} {license_file_text(About('0', '0', name, (person,)))}" for name in LICENSES),
        *(column.key for column in DESCRIBED),
        PUBLISHED.to_json(),
    ]
    return frozenset(word.lower() for text in texts for word in _WORD.findall(text))
