"""Shapes of a chest, mm in an adult: x to the left, y to the back, z to the head, carina at 165, domes at 60 and 75."""

import numpy as np

from support.patients.canvas import Canvas, Ellipsoid, Part, Tube, through, united

APEX = 238.0
RIB_GAP = 23.0


def cage(z):
    """Return half width, half depth and centre along y of the rib cage's inner wall at heights."""
    up = np.clip((z - 60) / (APEX - 60), 0, 1)
    down = np.clip((60 - z) / 150, 0, 1)
    narrowing = np.sqrt(np.maximum(1 - up**2.8, 1e-4))
    return (
        (137 * narrowing - 14 * down).astype(np.float32),
        (94 * np.sqrt(np.maximum(1 - up**3.4, 1e-4)) - 6 * down).astype(np.float32),
        (26 * up**2).astype(np.float32),
    )


def wall(x, y, z):
    """Return the distance from the inner wall of the rib cage along the radius, mm, below 0 inside."""
    width, depth, centre = cage(z)
    q = (np.abs(x / width) ** np.float32(2.4) + np.abs((y - centre) / depth) ** np.float32(2.4)) ** np.float32(1 / 2.4)
    return np.hypot(x, y - centre) * (1 - 1 / np.maximum(q, 1e-3))


def wall_point(side, angle, z):
    """Return the point of the wall at an angle in degrees, 0 at the back and 180 in front, and its normal inwards."""
    width, depth, centre = (float(a[0]) for a in cage(np.array([z], np.float32)))
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    r = ((sine / width) ** 2.4 + (abs(cosine) / depth) ** 2.4) ** (-1 / 2.4)
    return np.array([side * r * sine, centre + r * cosine, z]), np.array([-side * sine, -cosine, 0.0])


def diaphragm(x, y, right_dome, left_dome):
    """Return the height of the diaphragm: two domes with recesses at the wall, deepest at the back."""
    heights = []
    for sign, dome in ((-1, right_dome), (1, left_dome)):
        r = np.sqrt(((x - sign * 66) / 73) ** 2 + ((y + 4) / 98) ** 2)
        foot = 4 - 0.42 * np.clip(y + 10, 0, 90)
        heights.append(foot + (dome - foot) * np.maximum(1 - r**3, 0) - 25 * np.maximum(r - 1, 0))
    return np.maximum(*heights)


HEART = Ellipsoid((26, -34, 84), (62, 47, 54))
ATRIUM = Ellipsoid((-24, -26, 92), (33, 36, 48))
AORTA = [
    *through([(2, -26, 110), (-14, -28, 150), (-8, -24, 182), (10, -4, 194), (24, 22, 186)], (17, 17, 15, 14, 14)),
    *through([(24, 22, 186), (26, 38, 165), (24, 42, 80), (10, 44, -100)], (14, 13, 13, 11)),
]
TRACHEA = through([(0, -6, 330), (0, 0, 240), (2, 8, 169)], (9, 8.5, 9))
BRONCHI = {
    -1: through([(2, 8, 168), (-20, 12, 150), (-36, 14, 138)], (8, 7, 6.5)),
    1: through([(2, 8, 168), (28, 13, 146), (44, 17, 134)], (7, 6, 6)),
}
HILA = {-1: (-44, 10, 128), 1: (46, 12, 130)}
OESOPHAGUS = through([(-2, 20, 330), (-4, 24, 190), (4, 28, 120), (14, 26, 20)], (7, 8, 9, 9))


def mediastinum(x, y, z):
    """Return the distance from the mediastinum with heart, great vessels and hila, mm, below 0 inside."""
    septum = np.abs(x - 3) - np.interp(y, [-95, -50, 10, 40, 70], [5, 10, 20, 27, 34]).astype(np.float32)
    vessels = np.maximum(np.hypot(x * np.float32(0.9), y + 12) - np.interp(z, [120, 180, 245], [40, 36, 30]), 110 - z)
    parts = [
        np.maximum(HEART(x, y, z), -z),
        ATRIUM(x, y, z),
        vessels.astype(np.float32),
        *(Ellipsoid(centre, (17, 20, 24))(x, y, z) for centre in HILA.values()),
        *(tube(x, y, z) for tube in AORTA[5:]),
        np.hypot(x, y - 66).astype(np.float32) - 27,
    ]
    total = septum
    for part in parts:
        total = united(total, part - 4, 10)
    return total


def torso(x, y, z):
    """Return a value below 0 in trunk and neck."""
    wide = np.interp(z, [-100, 60, 190, 235, 262, 285], [168, 178, 184, 176, 118, 66]).astype(np.float32)
    deep = np.interp(z, [-100, 60, 190, 235, 262, 285], [122, 125, 116, 98, 78, 66]).astype(np.float32)
    centre = np.interp(z, [-100, 150, 260], [3, 6, 18]).astype(np.float32)
    return np.abs(x / wide) ** np.float32(2.6) + np.abs((y - centre) / deep) ** np.float32(2.6) - 1


def paint_body(canvas: Canvas, arms: str, muscle: float):
    """Paint trunk, arms, muscles, ribs and shoulder blades; return the distance from the rib cage's inner wall."""
    x, y, z = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
    body = torso(x, y, z) < 0
    canvas.part[body], canvas.hu[body] = Part.FAT, -100
    depth = wall(x, y, z)
    shell = np.flatnonzero(body & (depth >= 0) & (depth < 75))
    d, (px, py, pz) = depth.reshape(-1)[shell], canvas.points(shell)
    _, _, centre = cage(pz)
    back = (py - centre) / np.maximum(np.hypot(px, py - centre), 1)
    layer = muscle * (
        8
        + 15 * _bump(back, 0.35, 0.45)
        + 14 * _bump(back, -0.55, 0.35) * _bump(pz, 165, 75)
        + 26 * _bump(back, 0.55, 0.5) * _bump(pz, 215, 110)
    )
    part, hu = canvas.part.reshape(-1), canvas.hu.reshape(-1)
    deep = d < 9 + layer
    part[shell[deep]], hu[shell[deep]] = Part.MUSCLE, 52
    paint_scapulae(canvas, shell, d, px, back, pz, arms)
    # Ribs run around the chest and down to the front; the lowest end early, and cartilage continues them.
    around = (1 - back) / 2
    count = (APEX - 14 - 62 * around - pz) / RIB_GAP
    number = np.round(count)
    reach = np.select([number >= 11, number >= 10, number >= 7], [0.2, 0.35, 0.75], 0.93)
    off = np.hypot((count - number) * RIB_GAP / 6.5, (d - 5.5) / 4)
    bone = (off < 1) & (number >= 0) & (number <= 11) & (around < reach) & (np.abs(px) > 12)
    part[shell[bone]] = Part.RIBS
    hu[shell[bone]] = np.where(around[bone] > 0.8, 105, np.where(off[bone] > 0.65, 620, 260))
    for side in (-1, 1):
        for shape in (Ellipsoid((side * 30, 100, 100), (27, 19, 260)), Ellipsoid((side * 136, 12, 232), (42, 40, 44))):
            canvas.paint(shape, Part.MUSCLE, 52, over=(Part.FAT,))
        canvas.paint(Tube((side * 14, -62, 226), (side * 146, -8, 250), 6), Part.STERNUM, 450, over=_SOFT)
        paint_arm(canvas, side, arms)
    return depth


_SOFT = (Part.FAT, Part.MUSCLE)


def _bump(a, middle, width):
    return np.maximum(1 - ((a - middle) / width) ** 2, 0).astype(np.float32)


def paint_scapulae(canvas, shell, d, px, back, pz, arms):
    """Paint the shoulder blades, thin curved triangles that turn outwards when the arms are up."""
    turn = 0.25 if arms == "up" else 0.0
    low = 105 + 60 * turn
    span = np.clip((pz - low) / (225 - low), 0, 1)
    middle = 0.72 - turn
    plate = (np.abs(d - 21) < 3) & (pz > low) & (pz < 228) & (np.abs(back - middle) < 0.06 + 0.22 * span)
    canvas.part.reshape(-1)[shell[plate]], canvas.hu.reshape(-1)[shell[plate]] = Part.SCAPULAE, 420


def paint_arm(canvas, side, arms):
    """Paint an arm beside the chest or above the shoulder."""
    shoulder = (side * 160, 14, 236)
    hand = (side * 228, 30, -140) if arms == "down" else (side * 176, -10, 420)
    canvas.paint(Tube(shoulder, hand, 50, 40), Part.ARMS, -100, over=(Part.OUTSIDE,))
    canvas.paint(Tube(shoulder, hand, 42, 33), Part.ARMS, 55, over=(Part.OUTSIDE, Part.ARMS, Part.FAT))
    canvas.paint(Tube(shoulder, hand, 13, 11), Part.ARMS, 700, over=(Part.ARMS, Part.MUSCLE, Part.FAT))


def paint_spine(canvas: Canvas):
    """Paint vertebrae with discs, canal, arches and processes."""
    spans, x, y, z = canvas.box((-40, 40, -400), (40, 130, 400))
    z = z + 0 * x
    phase = (z + 4) / 23 - np.floor((z + 4) / 23)
    body = np.hypot(x / 19, (y - 66) / 16.5)
    arch = np.hypot(x / 16, (y - 90) / 13)
    process = np.maximum(np.abs(x) / 3.5, np.abs(y - 110) / 12)
    wing = np.maximum(np.abs(y - 92 + 0 * x) / 5, np.abs(x) / 30)
    vertebra = phase < 0.8
    part, hu = canvas.part[spans], canvas.hu[spans]
    for inside, value in (
        ((body < 1) & ~vertebra, 90),
        ((body < 1) & vertebra, 480),
        ((body < 0.86) & vertebra & (phase > 0.08) & (phase < 0.72), 190),
        (((process < 1) | (wing < 1)) & (phase < 0.5), 420),
        (arch < 1, 60),
        ((arch < 1) & vertebra, 480),
        (arch < 0.62, 25),
    ):
        inside = np.broadcast_to(inside, part.shape)
        part[inside], hu[inside] = Part.SPINE, value


def paint_sternum(canvas: Canvas):
    """Paint the sternum in front of the rib cage."""
    spans, x, y, z = canvas.box((-20, -125, 92), (20, -30, 226))
    _, depth, centre = cage(z)
    front = centre - depth
    off = np.maximum(np.abs(x) / 17, np.abs(y - front + 7) / 6)
    part, hu = canvas.part[spans], canvas.hu[spans]
    bone = (off < 1) & (part != Part.OUTSIDE)
    part[bone] = Part.STERNUM
    hu[bone] = np.where(off[bone] > 0.8, 450, 170)


def paint_abdomen(canvas: Canvas, voxels, below, dome_right, dome_left):
    """Paint what lies under the diaphragm, `below` mm under it, given by flat indices of voxels."""
    x, y, z = canvas.points(voxels)
    part, hu = canvas.part.reshape(-1), canvas.hu.reshape(-1)
    part[voxels], hu[voxels] = Part.ABDOMEN, np.where(np.sin(x / 9) + np.sin(y / 11) + np.sin(z / 8) > 0.6, 35, -95)
    liver = (below > 3) & (z > -80 + 0.5 * (x + 60)) & (x < 40 - 0.35 * (y + 40)) & (np.hypot(x, y - 66) > 40)
    part[voxels[liver]], hu[voxels[liver]] = Part.LIVER, 62
    under = below > 6
    for shape, name, value in (
        (Ellipsoid((72, 52, dome_left - 62), (44, 34, 52)), Part.SPLEEN, 50),
        (Ellipsoid((58, -18, dome_left - 44), (46, 46, 42)), Part.STOMACH, 45),
        (Ellipsoid((58, -18, dome_left - 44), (41, 41, 37)), Part.STOMACH, 18),
        (Ellipsoid((98, -24, dome_left - 84), (22, 26, 26)), Part.STOMACH, 40),
        (Ellipsoid((98, -24, dome_left - 84), (18, 22, 22)), Part.BOWEL_GAS, -1000),
    ):
        inside = under & (shape(x, y, z) < 0) & (part[voxels] != Part.LIVER)
        if name == Part.BOWEL_GAS:
            inside &= part[voxels] == Part.STOMACH
        part[voxels[inside]], hu[voxels[inside]] = name, value
    gas = under & (hu[voxels] == 18) & (part[voxels] == Part.STOMACH) & (y < -22)
    part[voxels[gas]], hu[voxels[gas]] = Part.STOMACH_GAS, -1000
    thin = below <= 3
    part[voxels[thin]], hu[voxels[thin]] = Part.DIAPHRAGM, 45


def paint_airway(canvas: Canvas, sides, shift):
    """Paint trachea, main bronchi of the lungs that exist, and oesophagus with a little gas."""
    for tube in OESOPHAGUS:
        canvas.paint(moved(tube, shift), Part.OESOPHAGUS, 35, over=_CENTRAL)
    canvas.paint(moved(Tube((-1, 22, 230), (2, 26, 150), 3.5), shift), Part.OESOPHAGEAL_GAS, -950, over=_CENTRAL)
    tubes = [moved(tube, shift) for tube in (*TRACHEA, *(tube for side in sides for tube in BRONCHI[side]))]
    for tube in tubes:
        thick = Tube(tube.start, tube.stop, tube.radius + 2, tube.end_radius + 2)
        canvas.paint(thick, Part.AIRWAY_WALL, 35, over=_CENTRAL)
    for tube in tubes:
        canvas.paint(tube, Part.AIRWAY, -1000, over=(*_CENTRAL, Part.AIRWAY_WALL))


_CENTRAL = (Part.MEDIASTINUM, Part.HEART, Part.AORTA, Part.OESOPHAGUS, Part.FAT, Part.MUSCLE)


def moved(tube: Tube, shift):
    """Return a tube moved along x."""
    (a, b, c), (d, e, f) = tube.start, tube.stop
    return Tube((a + shift, b, c), (d + shift, e, f), tube.radius, tube.end_radius)


def paint_surroundings(canvas: Canvas, table, clothes):
    """Paint the table, hollow or of foam, a mattress, and clothes."""
    spans, x, y, z = canvas.box((-215, 128, -400), (215, 190, 400))
    free = canvas.part[spans] == Part.OUTSIDE
    top = 133 + 0.0003 * x**2
    if table:
        thick = 32 - 0.00045 * x**2
        across = np.maximum(top + 9 - y, y - top - 9 - thick)
        across = np.maximum(across, np.abs(x) - 205)
        layers = [((across < 0), 120), ((across < -3), -860 if table == "solid" else -1000)]
        if table == "solid":
            layers.insert(0, ((y > top) & (y < top + 9) & (np.abs(x) < 205), -930))
        for inside, value in layers:
            inside = np.broadcast_to(inside, free.shape) & free
            canvas.part[spans][inside], canvas.hu[spans][inside] = Part.TABLE, value
    if clothes:
        grid = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
        x, y, z = grid
        folds = 1.075 + 0.02 * np.sin(z / 17) * np.sin(np.arctan2(y, x) * 9)
        size = torso(*grid) + 1
        cloth = (np.abs(size - folds**2.6) < 0.025) & (canvas.part == Part.OUTSIDE) & (z < 240) & (y < 128)
        canvas.part[cloth], canvas.hu[cloth] = Part.CLOTHES, -550
