"""Title, version, licence and creators of a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lungmix.errors import UsageError, mark_untrusted

LICENSES = {
    "CC0-1.0": ("CC0 1.0 Universal", "https://creativecommons.org/publicdomain/zero/1.0/legalcode"),
    "CC-BY-4.0": (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
    ),
    "CC-BY-SA-4.0": (
        "Creative Commons Attribution-ShareAlike 4.0 International",
        "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    ),
    "CC-BY-NC-4.0": (
        "Creative Commons Attribution-NonCommercial 4.0 International",
        "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    ),
    "CC-BY-NC-SA-4.0": (
        "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
    ),
}
"""Name and address of the text of licences by SPDX identifier."""

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
_DOI = re.compile(r"10\.\d{4,9}/[!-~]+")
_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")


@dataclass(frozen=True)
class Creator:
    """A person or organisation that made a data set.

    Attributes
    ----------
    name : str
        Name of an organisation, or of a person as ``Family, Given``.
    affiliation, orcid : str
        Empty where they are not given.

    Raises
    ------
    UsageError
        If the ORCID has another form, or its check digit does not fit its other digits.
    """

    name: str
    affiliation: str = ""
    orcid: str = ""

    def __post_init__(self) -> None:
        if problem := orcid_problem(self.orcid):
            raise UsageError(f"{mark_untrusted(self.orcid)} is no ORCID: {problem}")

    @property
    def family(self) -> str:
        """Family name of a person; empty for an organisation, whose name has no comma."""
        return self.name.partition(",")[0].strip() if "," in self.name else ""

    @property
    def given(self) -> str:
        """Given names of a person; empty for an organisation."""
        return self.name.partition(",")[2].strip()


@dataclass(frozen=True)
class About:
    """Statements of the publisher.

    Attributes
    ----------
    title, version : str
        Title and version of the data set.
    license : str
        SPDX identifier, see `LICENSES`, in capitals or not, with hyphens or spaces; any text if there is a
        `license_text`.
    creators : tuple of Creator
        Who is cited.
    license_text : str
        Text of the licence; empty to name it with the address of its text.
    publisher : str
        Organisation that keeps the data set and makes it available; empty if the repository enters itself.
    doi : str
        DOI of this version, such as 10.5281/zenodo.1234; empty if there is none.

    Raises
    ------
    UsageError
        If the title is empty, the version is no word, the licence has neither a known identifier nor a text, or the
        DOI has another form.
    """

    title: str
    version: str
    license: str
    creators: tuple[Creator, ...]
    license_text: str = ""
    publisher: str = ""
    doi: str = ""

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.title.isprintable():
            raise UsageError("the title of a data set needs one line of text: give another `title`")
        if not _VERSION.fullmatch(self.version):
            raise UsageError(f"`version={self.version!r}` is not possible: use letters, digits and dots, such as 1.0")
        written = self.license.strip().replace(" ", "-").upper()
        if written in LICENSES:
            object.__setattr__(self, "license", written)
        elif not self.license_text:
            raise UsageError(
                f"the licence {self.license!r} is not one of {', '.join(LICENSES)}: give the file with its text as "
                "`license_text`"
            )
        if not self.creators:
            raise UsageError("a data set needs creators: give a file with their names as `creators`")
        if self.doi and not _DOI.fullmatch(self.doi):
            raise UsageError(f"`doi={self.doi!r}` is no DOI: write it without an address, such as 10.5281/zenodo.1234")

    @property
    def license_url(self) -> str:
        """Address of the text of the licence, or the file with it."""
        return LICENSES[self.license][1] if self.license in LICENSES else "LICENSE.txt"


def orcid_problem(orcid: str) -> str:
    """Return what is wrong with an ORCID, with a remedy; empty for a right one, and for none.

    The last character is the check digit of the 15 digits before it by ISO 7064, mod 11-2.
    """
    if not orcid:
        return ""
    if not _ORCID.fullmatch(orcid):
        return "write it like 0000-0002-1825-0097"
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    remainder = (12 - total % 11) % 11
    expected = "X" if remainder == 10 else str(remainder)
    if orcid[-1] == expected:
        return ""
    return f"the check digit of its other digits is {expected}, so that one of them is mistyped: copy it again"


def citation_of(about: About, year: int) -> str:
    """Return the sentence by which the data set is cited."""
    sentence = f"{'; '.join(creator.name for creator in about.creators)} ({year}). {about.title}, version"
    return f"{sentence} {about.version}.{f' {doi_url(about.doi)}' if about.doi else ''}"


def doi_url(doi: str) -> str:
    """Return the address of a DOI."""
    return f"https://doi.org/{doi}"


def license_file_text(about: About) -> str:
    """Return the text of the file with the licence."""
    if about.license_text:
        return about.license_text
    name, url = LICENSES[about.license]
    return f"{name}\nSPDX-License-Identifier: {about.license}\n\nThe text of the licence is at {url}\n"


def json_creators(creators: Sequence[Creator]) -> list[dict[str, object]]:
    """Return creators as persons or organisations of schema.org; a name with a comma is that of a person."""
    out: list[dict[str, object]] = []
    for creator in creators:
        entry: dict[str, object] = {"@type": "Person" if creator.family else "Organization", "name": creator.name}
        if creator.orcid:
            entry["identifier"] = f"https://orcid.org/{creator.orcid}"
        if creator.affiliation:
            entry["affiliation"] = {"@type": "Organization", "name": creator.affiliation}
        out.append(entry)
    return out
