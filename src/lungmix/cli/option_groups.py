"""Groups of options that several commands share, passed to each command as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Any

from lungmix.cli import options as opt


@dataclass(frozen=True)
class OnCluster:
    """Options of a command for the lock of the store, the cluster, the log and the progress."""

    wait: opt.Wait = False
    scheduler: opt.Scheduler = None
    scheduler_file: opt.SchedulerFile = None
    workers: opt.Workers = None
    memory_limit: opt.MemoryLimit = None
    log: opt.LogFile = None
    performance_report: opt.PerformanceReport = None
    quiet: opt.Quiet = False


@dataclass(frozen=True)
class MaskOptions:
    """Options for the parameters of computed masks; see `lungmix.store.choices.choose`."""

    preset: opt.Preset = None
    threshold: opt.Threshold = None
    opening: opt.Opening = None
    min_voxels: opt.MinVoxels = None
    radii: opt.Radii = None


@dataclass(frozen=True)
class SegmenterOptions:
    """Options for the segmenter that makes the masks."""

    mask_with: opt.MaskWith = None
    mask_weights: opt.MaskWeights = None
    mask_device: opt.MaskDevice = None


@dataclass(frozen=True)
class SeriesOptions:
    """Options that choose DICOM series."""

    series_filter: opt.SeriesFilter = "thinnest"
    allow_gaps: opt.AllowGaps = False
    trust_positions: opt.TrustPositions = False

    def rules(self) -> Any:
        """Return the filter of series that the options describe."""
        from lungmix.formats import SeriesFilter

        return SeriesFilter(self.series_filter, self.allow_gaps, self.trust_positions)


@dataclass(frozen=True)
class IntakeOptions:
    """Options for the patient data to keep."""

    key_table: opt.KeyFile = None
    keep_names: opt.KeepNames = False
    retain_patient: opt.RetainPatient = False
    shift_dates: opt.ShiftDates = False

    def parameters(self) -> Any:
        """Return the intake parameters that the options describe."""
        from lungmix.parameters import IntakeParameters

        return IntakeParameters(self.keep_names, self.key_table, self.retain_patient, self.shift_dates)


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: each parameter whose type is a group of options is replaced by those options."""
    parameters = inspect.signature(command, eval_str=True).parameters
    types: dict[str, Any] = {name: parameter.annotation for name, parameter in parameters.items()}
    groups: dict[str, Any] = {name: kind for name, kind in types.items() if is_dataclass(kind)}

    @wraps(command)
    def with_options(**arguments: Any) -> None:
        for name, group in groups.items():
            arguments[name] = group(**{option.name: arguments.pop(option.name) for option in fields(group)})
        command(**arguments)

    expanded: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        options = inspect.signature(groups[name], eval_str=True).parameters.values() if name in groups else [parameter]
        expanded += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    # typer finds options in the signature and the annotations.
    with_options.__dict__["__signature__"] = inspect.Signature(expanded)
    with_options.__annotations__ = {option.name: option.annotation for option in expanded}
    return with_options
