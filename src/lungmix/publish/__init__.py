"""Publication of a cohort as a data set: a folder of plain files with metadata, and checks of such a folder."""

from lungmix.publish.about import LICENSES, About, Creator
from lungmix.publish.check import check_dataset
from lungmix.publish.creators import read_creators
from lungmix.publish.dataset import Published, publish
from lungmix.publish.identifiers import identifiers_of
from lungmix.publish.split import SplitRule

__all__ = [
    "LICENSES",
    "About",
    "Creator",
    "Published",
    "SplitRule",
    "check_dataset",
    "identifiers_of",
    "publish",
    "read_creators",
]
