"""Allowlist of words in texts of headers: makers, models and kernels of CT scanners.

Texts of a DICOM header are free and may contain names. Functions of this module return only words and model numbers of
the lists below.
"""

from __future__ import annotations

import re

OTHER = "other"
"""Value for a maker without a known brand."""

_MAX_LENGTH = 64
_WORD = re.compile(r"[^\W\d_]+|\d+")
_ALLOWED_CHARACTERS = re.compile(r"[A-Za-z0-9 ._+\-/()&,]*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BRANDS = _words(
    "siemens ge philips toshiba canon hitachi fujifilm uih neusoft anke minfound samsung neurologica shimadzu picker "
    "marconi elscint imatron mediso planmed newtom varian elekta accuray medtronic lungmix"
)
_MAKER_WORDS = _BRANDS | _words(
    "healthineers healthcare health ag medical systems system electric general united imaging mec cts co ltd inc corp "
    "corporation limited technology technologies electronics international nms b v cps cti phantom developers"
)

_FAMILIES = _words(
    # Siemens
    "somatom naeotom biograph symbia sensation emotion definition volume "
    # GE
    "lightspeed brightspeed optima revolution discovery hispeed prospeed cardiographe bodytom "
    # Philips
    "brilliance ingenuity iqon incisive mx gemini vereos ict access precedence spectral "
    # Canon and Toshiba
    "aquilion asteion alexion activion astelion celesteion xvision "
    # Hitachi and Fujifilm
    "eclos scenaria supria pronto presto pratico radix fct robusto "
    # others
    "uct umi uexplorer neuviz anatom scintcare ceretom omnitom scenium phantom lungmix"
)
_MODEL_WORDS = _FAMILIES | _words(
    "as flash edge force drive confidence perspective scope spirit zoom plus cardiac go now up all top sim open pro x "
    "cite ceed alpha peak prime mct vision truepoint horizon duo ultra qx i rt xtra vct s e st ste rx ls hd evo apex "
    "frontier gsi act ascend maxima mi nm ct pet big bore power sp core elite tf tof idt slice one genesis prism cx "
    "cxl rxl lightning lb start exceed precision serve view speedia embrace essence glory epoch ace p q fx dual source "
    "elite expert advance select tower"
)
_MODEL_NUMBERS = _words(
    "1 2 3 4 5 6 8 10 12 16 20 24 28 32 40 48 50 60 64 80 90 96 100 128 160 192 256 320 384 500 510 520 528 530 540 "
    "550 560 570 580 590 600 610 630 640 660 670 680 690 710 750 760 768 780 790 820 850 860 960 3500 5000 7500 8000"
)

_KERNEL_WORDS = _words(
    # words of GE and other makers
    "standard stnd soft lung bone detail edge chest boneplus ultra parenchyma smooth sharp brain body sinus head "
    "medium high resolution hd adaptive enhance "
    # letters of Philips
    "a b c d e f l y w ya yb yc yd ye ub uc ud eb ec xa xb xc xl sa sb hr imr idose "
    # strengths of iterative reconstructions, next to a kernel
    "asir aidr admire safire fbp ss mild strong std"
)
_STRENGTHS = _words("1 2 3 4 5")
_KERNEL_CODE = re.compile(
    r"(?:FC|FL|AF|SHe|B[bflmnprv]?|C[n]?|D[fr]?|E[r]?|F|H[cfnprvw]?|I[fr]?|J[r]?|L|Lung|Q[fr]?|S[abcdf]?|T[fr]?|"
    r"U[bfrvxz]?)[-_]?\d{1,3}[a-z]{0,2}",
    re.IGNORECASE,
)


def maker(text: str | None) -> str | None:
    """Return a maker unchanged if all its words are known, else only its known words.

    Without a known brand, the result is `OTHER`; for an empty text it is None.
    """
    if not text or not text.strip():
        return None
    return _allowed_text(text, _BRANDS, _MAKER_WORDS, frozenset()) or OTHER


def model(text: str | None) -> str | None:
    """Return a model unchanged if all its words are known, else only its known words; None without a known family.

    A family is a word such as "somatom" or "aquilion".
    """
    return _allowed_text(text or "", _FAMILIES, _MODEL_WORDS, _MODEL_NUMBERS)


def kernel(text: str | None) -> str | None:
    r"""Return a reconstruction kernel such as ``B70f``, ``LUNG``, ``FC51`` or ``Br40d\3``; None for any other text."""
    value = (text or "").strip()
    parts = value.split("\\")
    is_known = _is_kernel(parts[0].strip()) and all(
        _is_kernel(part.strip()) or part in _STRENGTHS for part in parts[1:]
    )
    return value if is_known and len(value) <= _MAX_LENGTH else None


def _is_kernel(part: str) -> bool:
    if _KERNEL_CODE.fullmatch(part):
        return True
    words = re.split(r"[ _+\-/]+", part.lower())
    return bool(part) and all(word in _KERNEL_WORDS or _KERNEL_CODE.fullmatch(word) for word in words)


def _allowed_text(text: str, anchors: frozenset[str], words: frozenset[str], numbers: frozenset[str]) -> str | None:
    """Return the text if all its words are in `words` or `numbers`, else only these; None without one in `anchors`."""
    text = text.strip()[:_MAX_LENGTH]
    text_words = _WORD.findall(text)
    known_words = [word for word in text_words if word.lower() in words or word in numbers]
    if not any(word.lower() in anchors for word in known_words):
        return None
    is_allowed = len(known_words) == len(text_words) and _ALLOWED_CHARACTERS.fullmatch(text) is not None
    return text if is_allowed else " ".join(known_words)
