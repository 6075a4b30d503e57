"""Text of a data set about how programs open it, with a call for each."""

from __future__ import annotations

_TEXT = """\
Paths in all tables are relative to this folder. The examples are to be run in it, and open the scan {case}.

Python, tables and images:

```python
import pandas
import SimpleITK

cases = pandas.read_csv("cases.csv").set_index("case")
ct = SimpleITK.ReadImage("images/{case}/{case}_ct.nrrd")
tissue = SimpleITK.ReadImage("images/{case}/{case}_tissue.nrrd")
hu = SimpleITK.GetArrayFromImage(ct)  # axes z, y, x
```

mlcroissant reads all tables by croissant.json:

```python
import mlcroissant

records = list(mlcroissant.Dataset("croissant.json").records("cases"))
```

MONAI; pynrrd needs to be installed. data_list_key="test" gives the test set, if there is one:

```python
from monai.data import Dataset, load_decathlon_datalist
from monai.transforms import LoadImaged

items = load_decathlon_datalist("datalist.json", is_segmentation=True, data_list_key="training")
load = LoadImaged(keys=["image", "label"], reader="NrrdReader", ensure_channel_first=True)
dataset = Dataset(items, load)
```

TorchIO:

```python
import json
import torchio

items = json.load(open("datalist.json"))["training"]
dataset = torchio.SubjectsDataset([
    torchio.Subject(ct=torchio.ScalarImage(item["image"]), tissue=torchio.LabelMap(item["label"]), case=item["case"])
    for item in items
])
```

PyRadiomics; a row of features for the lung, and for each tissue, of each scan:

```sh
pyradiomics batch.csv -o features.csv -f csv
```

3D Slicer, in its Python console. Or drop the files on its window: a label map becomes a segmentation if *Segmentation*
is chosen in the column *Description*.

```python
folder = "/path/to/this/folder"
colors = slicer.util.loadColorTable(f"{folder}/tissue_slicer.csv")
slicer.util.loadVolume(f"{folder}/images/{case}/{case}_ct.nrrd")
slicer.util.loadSegmentation(f"{folder}/images/{case}/{case}_tissue.nrrd", {"colorNodeID": colors.GetID()})
```

ITK-SNAP:

```sh
itksnap -g images/{case}/{case}_ct.nrrd -s images/{case}/{case}_tissue.nrrd -l tissue_itksnap.txt
```
"""

FIXED_TEXT = _TEXT.replace("{case}", "case")
"""This text, without the name of a case."""


def loading_text(case: str) -> str:
    """Return the text, with the name of a case whose images the examples open."""
    return _TEXT.replace("{case}", case).rstrip()
