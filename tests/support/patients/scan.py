"""CT of a patient: anatomy, disease, texture, partial volume and noise, with the part of every voxel."""

from dataclasses import dataclass, field

import numpy as np

from support.patients import anatomy
from support.patients.canvas import Canvas, Part, Tube
from support.patients.disease import Bullae, Pneumothorax, waves


@dataclass(frozen=True)
class Patient:
    """Parameters of a patient and of the scan.

    Attributes
    ----------
    spacing : tuple of float
        Voxel spacing along z, y, x, mm.
    diseases : tuple of Disease
        Diseases, in order.
    scale : float
        Size of the body; an infant has 0.36.
    extent : tuple of float
        Heights of the image, mm in an adult.
    half_width : float
        Half width of the image, mm in an adult.
    arms : {"up", "down"}
        Position of the arms.
    table : {"hollow", "solid", None}
        Kind of the table.
    clothes : bool
        If true, there is cloth around the chest.
    muscle : float
        Thickness of the muscles of the wall, 1 in a lean adult.
    domes : tuple of float
        Height of the right and of the left diaphragm, mm.
    aerated : float
        HU of the lungs.
    removed : int, optional
        Side whose lung has been removed: its space holds fluid.
    noise : float
        SD, HU.
    kernel : float
        SD of the blur of the noise in voxels: 0.4 for a sharp kernel, 1.0 for a soft one.
    seed : int
        Seed of vessels and noise.
    """

    spacing: tuple = (4.0, 2.5, 2.5)
    diseases: tuple = ()
    scale: float = 1.0
    extent: tuple = (-70.0, 285.0)
    half_width: float = 205.0
    arms: str = "up"
    table: str | None = "hollow"
    clothes: bool = True
    muscle: float = 1.0
    domes: tuple = (75.0, 62.0)
    aerated: float = -850.0
    removed: int | None = None
    noise: float = 20.0
    kernel: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class Scan:
    """HU and `Part` of each voxel, [z, y, x], and the spacing along these axes, mm."""

    hu: np.ndarray
    part: np.ndarray
    spacing: tuple = field(default=(1.0, 1.0, 1.0))

    def ml(self, *parts):
        """Return the volume of some parts, mL."""
        return float(np.isin(self.part, parts).sum() * np.prod(self.spacing) / 1000)


def scan(patient: Patient) -> Scan:
    """Return the scan of a patient."""
    z, y, x = (s / patient.scale for s in patient.spacing)
    # Thick slices are means of thin ones.
    thin = 1 if z <= 4.5 else 3
    low, high = patient.extent
    slices = round((high - low) / z)
    canvas = Canvas(
        (low + (np.arange(slices * thin) + 0.5) * z / thin).astype(np.float32),
        np.arange(-135, 185, y, np.float32),
        np.arange(-patient.half_width, patient.half_width, x, np.float32),
    )
    _paint(canvas, patient)
    random = np.random.default_rng(patient.seed)
    hu, part = canvas.hu, canvas.part
    # A point of the image is the mean of what lies within a voxel, and of a little more.
    near = np.exp(-0.5 / 0.55**2)
    for axis in (1, 2) if thin > 1 else (0, 1, 2):
        hu = _spread(hu, axis, near)
    hu = hu.reshape(slices, thin, *hu.shape[1:]).mean(axis=1)
    part = np.ascontiguousarray(part[thin // 2 :: thin])
    hu += _noise(random, hu.shape, patient)
    hu = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Scan(hu, part, tuple(patient.spacing))


def _paint(canvas, patient):
    depth = anatomy.paint_body(canvas, patient.arms, patient.muscle)
    inside = np.flatnonzero(depth < 0)
    x, y, z = canvas.points(inside)
    depth = -depth.reshape(-1)[inside]
    shift = 0.0
    domes = list(patient.domes)
    if patient.removed:
        shift = 26.0 * patient.removed
        domes[patient.removed > 0] += 45
    dome = anatomy.diaphragm(x, y, *domes)
    part, hu = canvas.part.reshape(-1), canvas.hu.reshape(-1)
    above = z >= dome
    middle = anatomy.mediastinum(x - shift, y, z)
    lung = above & (middle >= 0)
    centre = above & ~lung & (z < 300)
    part[inside[centre]], hu[inside[centre]] = Part.MEDIASTINUM, np.where(middle[centre] < -4, 30, -80)
    organs = (
        (Part.HEART, 42, (anatomy.HEART, anatomy.ATRIUM)),
        (Part.AORTA, 45, anatomy.AORTA),
    )
    for name, value, shapes in organs:
        organ = np.zeros(len(inside), bool)
        for shape in shapes:
            organ |= shape(x - shift, y, z) < 0
        organ &= above & ~lung
        part[inside[organ]], hu[inside[organ]] = name, value
    anatomy.paint_abdomen(canvas, inside[~above], (dome - z)[~above], *domes)
    anatomy.paint_airway(canvas, [side for side in (-1, 1) if side != patient.removed], shift)
    anatomy.paint_sternum(canvas)
    anatomy.paint_spine(canvas)
    lung &= part[inside] != Part.SPINE
    side = np.where(x < 3 + shift, -1, 1)
    for sign, name in ((-1, Part.RIGHT), (1, Part.LEFT)):
        chosen = lung & (side == sign)
        voxels, points = inside[chosen], (x[chosen], y[chosen], z[chosen])
        if sign == patient.removed:
            part[voxels], hu[voxels] = Part.EFFUSION, 15
            continue
        part[voxels] = name
        hu[voxels] = patient.aerated + 0.35 * points[1] + 18 * waves(*(2 * p for p in points))
        _paint_vessels(canvas, sign, name, shift, patient.seed)
        for disease in patient.diseases:
            if disease.side == sign:
                _paint_disease(canvas, patient, disease, voxels, points, depth[chosen])
    anatomy.paint_surroundings(canvas, patient.table, patient.clothes)


def _paint_disease(canvas, patient, disease, voxels, points, depth):
    part, hu = canvas.part.reshape(-1), canvas.hu.reshape(-1)
    free = np.isin(part[voxels], (Part.RIGHT, Part.LEFT))
    voxels, points, depth = voxels[free], [p[free] for p in points], depth[free]
    voxel_ml = np.prod([np.diff(axis[:2])[0] for axis in (canvas.z, canvas.y, canvas.x)]) * patient.scale**3 / 1000
    count = min(round(disease.ml / voxel_ml), len(voxels))
    order = np.argsort(disease.order(*points, depth), kind="stable")
    diseased = voxels[order[:count]]
    if isinstance(disease, Bullae):
        edge = order[count : count + round(0.12 * count)]
        hu[voxels[edge]] = -700
    elif not isinstance(disease, Pneumothorax) and disease.hu > 20:
        edge = order[count : count + round(0.25 * count)]
        hu[voxels[edge]] = np.maximum(hu[voxels[edge]], -600)
    hu[diseased] = disease.hu
    if disease.part() is not None:
        part[diseased] = disease.part()


def _paint_vessels(canvas, side, name, shift, seed):
    """Paint trees of vessels and bronchi that fan out from the hilum; they belong to the lung."""
    random = np.random.default_rng([seed, 2 + side])
    x, y, z = anatomy.HILA[side]
    root = np.array([x + shift, y, z], float)
    for way in ((1, -0.5, 0.9), (1, 0.3, 1.1), (1, -0.9, 0.1), (1, 0.6, 0.2), (0.9, -0.5, -0.8), (0.7, 0.7, -1.0)):
        direction = np.array(way) * (side, 1, 1)
        _grow(canvas, random, root, direction / np.linalg.norm(direction), 5.0, 42.0, name, 4)
    for way in ((1, -0.3, 0.8), (1, 0.4, 0.0), (0.8, 0.4, -0.9)):
        direction = np.array(way) * (side, 1, 1)
        end = root + 38 * direction / np.linalg.norm(direction)
        canvas.paint(Tube(tuple(root), tuple(end), 5.5, 4), None, 20, over=(name,))
        canvas.paint(Tube(tuple(root), tuple(end), 4, 2.5), None, -980, over=(name,))


def _grow(canvas, random, start, direction, radius, length, name, generations):
    end = start + direction * length
    canvas.paint(Tube(tuple(start), tuple(end), radius, radius * 0.8), None, 40, over=(name,))
    if not generations:
        return
    for _ in range(2):
        turned = direction + 0.55 * random.normal(size=3)
        _grow(canvas, random, end, turned / np.linalg.norm(turned), radius * 0.72, length * 0.78, name, generations - 1)


def _spread(hu, axis, near):
    """Return HU with a share `near` of both neighbours along an axis."""
    hu = np.moveaxis(hu, axis, 0)
    out = hu.copy()
    out[1:] += near * hu[:-1]
    out[:-1] += near * hu[1:]
    out[1:-1] /= 1 + 2 * near
    out[[0, -1]] /= 1 + near
    return np.moveaxis(out, 0, axis)


def _noise(random, shape, patient):
    noise = random.standard_normal(shape, np.float32)
    taps = np.arange(-3, 4)
    weights = np.exp(-0.5 * (taps / max(patient.kernel, 0.05)) ** 2)
    weights /= np.sqrt((weights**2).sum())
    for axis in (1, 2):
        if patient.kernel > 0.3:
            noise = sum(np.float32(w) * np.roll(noise, int(t), axis) for w, t in zip(weights, taps, strict=True))
    return np.float32(patient.noise) * noise
