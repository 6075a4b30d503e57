"""Translation of messages for the command line.

Messages of the library name its parameters and methods, such as ``wait=True``. The command line replaces them by
options and commands, such as ``--wait``.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from lungmix.errors import REPORT_IT

OPTIONS = {
    "accept_burned_in": "--accept-burned-in",
    "accept_hu": "--accept-hu",
    "allow_gaps": "--allow-gaps",
    "beta": "--beta",
    "binary": "--binary",
    "by": "--by",
    "chunk_slices": "--chunk-slices",
    "creators": "--creators",
    "cuts": "--cut",
    "filter": "--series-filter",
    "format": "--format",
    "host": "--host",
    "key": "--key-table",
    "key_table": "--key-table",
    "doi": "--doi",
    "exclude_cases": "--leave-out",
    "exclude_flagged": "--exclude-flagged",
    "exclude_flagged=False": "--pool-flagged",
    "exclude_regions": "--exclude-elsewhere",
    "exclude_regions=AIRWAY": "--exclude-airways",
    "exclude_regions=ELSEWHERE": "--exclude-elsewhere",
    "groups": "--groups",
    "harmonise": "--harmonise",
    "image": "--image",
    "kernel_reference": "--kernel-reference",
    "leave_one_patient_out": "--leave-one-patient-out",
    "license": "--license",
    "license_text": "--license-file",
    "mask_device": "--mask-device",
    "mask_labels": "--mask-labels",
    "mask_weights": "--mask-weights",
    "mask_with": "--mask-with",
    "masks": "--masks",
    "memory_limit": "--memory-limit",
    "min_scans": "--min-scans",
    "min_voxels": "--min-voxels",
    "model": "--model",
    "n_components": "--components",
    "nrrd": "--nrrd",
    "opening": "--opening",
    "patients": "--patients",
    "port": "--port",
    "preset": "--preset",
    "previous": "--previous",
    "quality": "--qc-threshold",
    "register": "--register",
    "repeats": "--repeats",
    "retain_uid": "--retain-uid",
    "scheduler": "--scheduler",
    "scheduler_file": "--scheduler-file",
    "shift_dates": "--shift-dates",
    "smooth": "--smooth",
    "sources": "--source",
    "table": "--table",
    "test_share": "--test-share",
    "title": "--title",
    "trust_positions": "--trust-positions",
    "version": "--version",
    "wait": "--wait",
    "what": "--what",
    "with_ct": "--with-ct",
    "workers": "--workers",
    "zones": "--zones",
}
"""Option by name of a parameter, or by ``NAME=VALUE`` if a value, or an item of a list, has a separate option."""

COMMANDS = {
    "Cohort.keys": "lungmix info STORE",
    "Pipeline.convert": "lungmix convert STORE SOURCE",
    "Pipeline.fit": "lungmix fit STORE",
    "Pipeline.followup": "lungmix followup STORE",
    "Pipeline.harmonise": "lungmix harmonise STORE",
    "Pipeline.label": "lungmix label STORE",
    "Pipeline.mask": "lungmix mask STORE",
    "Pipeline.measure": "lungmix measure STORE",
    "Pipeline.remove": "lungmix remove STORE CASE",
    "Pipeline.run": "lungmix run STORE SOURCE",
    "Pipeline.zones": "lungmix zones STORE",
    "lungmix.evaluate": "lungmix evaluate STORE REFERENCE",
    "lungmix.run": "lungmix run STORE SOURCE",
}
"""Command by name of a method or function, with the arguments that the command always needs."""

_CODE = re.compile("`([^`]{1,200})`")
_REPORT_IT = "run again with --debug and report it"


def with_options(message: str, store: str = "STORE") -> str:
    """Return a message with options and commands in place of parameters and methods.

    Parameters
    ----------
    message : str
        Message of the library. Other code in backticks stays as it is.
    store : str
        Folder or URL of the store to name in commands; it is quoted for a shell if necessary.
    """
    argument = shlex.quote(store) if store.isprintable() else "STORE"
    return _CODE.sub(lambda code: _spelled(code, argument), message).replace(REPORT_IT, _REPORT_IT)


def spelled(messages: Any) -> Any:
    """Return a message, or all messages in nested lists and mappings, translated by `with_options`."""
    if isinstance(messages, Mapping):
        return {key: spelled(value) for key, value in messages.items()}
    if isinstance(messages, list | tuple):
        return list(map(spelled, messages))
    return with_options(messages) if isinstance(messages, str) else messages


def _spelled(match: re.Match[str], store: str) -> str:
    method = match[1].partition("(")[0]
    command = COMMANDS.get(method) if method != match[1] else None
    try:
        call = ast.parse(match[1] if command else f"_({match[1]})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # code of another program, or text from a file
        return match[0]
    arguments = [(name, value) for name, value in _arguments(call) if value is not None or not command]
    if not {name for name, _ in arguments} <= OPTIONS.keys() or not (arguments or command):
        return match[0]
    options = [_option(name, value) for name, value in arguments]
    command = command and command.replace("STORE", store)
    return f"`{' '.join((command, *options))}`" if command else " ".join(options)


def _arguments(call: ast.expr) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield names and values of the arguments of a call, and of calls in its arguments; a bare name has value None."""
    if not isinstance(call, ast.Call):
        yield ast.unparse(call), None
        return
    for argument in call.args:
        yield from _arguments(argument)
    for keyword in call.keywords:
        yield str(keyword.arg), keyword.value


def _option(name: str, value: ast.expr | None) -> str:
    if isinstance(value, ast.List):
        items = [ast.unparse(item) for item in value.elts]
        return " ".join(OPTIONS.get(f"{name}={item}", f"{OPTIONS[name]} {item}") for item in items)
    if value is None or (isinstance(value, ast.Constant) and value.value is True):
        return OPTIONS[name]
    if f"{name}={ast.unparse(value)}" in OPTIONS:
        return OPTIONS[f"{name}={ast.unparse(value)}"]
    text = shlex.quote(str(value.value)) if isinstance(value, ast.Constant) else ast.unparse(value)
    return f"{OPTIONS[name]} {text}"
