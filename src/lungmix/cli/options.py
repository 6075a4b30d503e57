"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Store = Annotated[str, typer.Argument(help="Folder of the cohort; made if it is not there.", metavar="STORE")]
Sources = Annotated[
    list[str],
    typer.Argument(
        help="DICOM folder, .nrrd .nhdr .mha .mhd .nii .nii.gz file, .zip or .tar archive, or a text or CSV list.",
        metavar="SOURCE...",
    ),
]
Preset = Annotated[str, typer.Option(help="Sizes of the mask: 'paper' in voxels, 'physical' in mm and mL.")]
Threshold = Annotated[int, typer.Option(help="HU below which a voxel is air.")]
Opening = Annotated[int | None, typer.Option(help="Iterations of the opening, in place of the preset's.")]
MinVoxels = Annotated[int | None, typer.Option(help="Smallest island that is lung, in voxels.")]
Radii = Annotated[list[int] | None, typer.Option("--radius", help="Radius of a closing in voxels; repeat for several.")]
Model = Annotated[str, typer.Option(help="'fit' a mixture to this cohort, take the 'published' one, or a FILE.json.")]
Components = Annotated[int, typer.Option(help="Gaussians of a fitted mixture.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler, such as tcp://host:8786.")]
SchedulerFile = Annotated[Path | None, typer.Option(help="File that a dask scheduler wrote.")]
Workers = Annotated[int | None, typer.Option("--workers", "-j", help="Processes of the local cluster.")]
MemoryLimit = Annotated[str | None, typer.Option(help="Memory of each local process, such as 2GB.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
ReportDir = Annotated[Path | None, typer.Option("--report", help="Write a page to look at into this folder.")]
