// Corresponding positions of two volumes: functions from a position in one volume to one in the other.
lungmix.link = {
  // The same relative position between the ends of the lungs along each axis; of the volumes where one has no lungs.
  byLungs(from, to) {
    const whole = (volume) => volume.shape.map((n) => [0, n - 1]);
    const [begin, end] = from.lungs && to.lungs ? [from.lungs, to.lungs] : [whole(from), whole(to)];
    return (position) => position.map((index, axis) => {
      const [low, high] = begin[axis];
      const [first, last] = end[axis];
      return first + ((index - low) / Math.max(high - low, 1)) * (last - first);
    });
  },

  // By registrations with the first scan; null stands for the first scan itself.
  byRegistration(from, to) {
    const { index, point } = lungmix.Affine;
    return (position) => {
      const inFirst = from ? from.toFirst(point(from.later, position)) : point(to.first, position);
      return to ? index(to.later, to.toLater(inFirst)) : index(from.first, inFirst);
    };
  },
};

// Affine maps as 12 numbers, the rows of a 3 x 4 matrix: from indices (z, y, x) to points in mm.
lungmix.Affine = {
  point(m, [z, y, x]) {
    return [0, 4, 8].map((row) => m[row] * z + m[row + 1] * y + m[row + 2] * x + m[row + 3]);
  },

  // The index of a point, by Cramer's rule.
  index(m, point) {
    const columns = [0, 1, 2].map((column) => [m[column], m[column + 4], m[column + 8]]);
    const right = point.map((value, row) => value - m[4 * row + 3]);
    const determinant = ([a, b, c]) => a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1]) + c[0] * (a[1] * b[2] - a[2] * b[1]);
    const whole = determinant(columns);
    return columns.map((_, column) => determinant(columns.map((entry, i) => (i === column ? right : entry))) / whole);
  },
};

// Registration of a later scan: where each point of the first scan lies in the later one.
lungmix.Registration = class {
  constructor({ first, affines, field }) {
    this.case = first;
    [this.first, this.later] = affines;
    this.field = field;
    const bytes = Uint8Array.from(atob(field.values), (letter) => letter.charCodeAt(0));
    this.values = new Int16Array(bytes.buffer);
  }

  // Displacement at a point of the first scan, linear between the points of the field, in mm.
  displacement(point) {
    const { shape, origin, spacing, direction, step } = this.field;
    const cells = [2, 1, 0].map((axis, k) => {
      // Axes of the field are x, y, z in `direction`, and z, y, x in `shape`.
      const along = [0, 1, 2].reduce((sum, row) => sum + direction[3 * row + axis] * (point[row] - origin[row]), 0);
      const at = lungmix.clamp(along / spacing[axis], 0, shape[k] - 1);
      const low = Math.min(Math.floor(at), Math.max(shape[k] - 2, 0));
      return { low, high: Math.min(low + 1, shape[k] - 1), share: at - low };
    });
    const sum = [0, 0, 0];
    for (let corner = 0; corner < 8; corner++) {
      let [weight, index] = [1, 0];
      cells.forEach(({ low, high, share }, k) => {
        const isHigh = (corner >> k) & 1;
        weight *= isHigh ? share : 1 - share;
        index = index * shape[k] + (isHigh ? high : low);
      });
      for (let k = 0; k < 3; k++) sum[k] += weight * step * this.values[3 * index + k];
    }
    return sum;
  }

  toLater(point) {
    const moved = this.displacement(point);
    return point.map((value, k) => value + moved[k]);
  }

  // The point of the first scan that lies at a point of the later one, by iteration.
  toFirst(point) {
    let guess = [...point];
    for (let step = 0; step < 40; step++) {
      const back = this.displacement(guess);
      const next = point.map((value, k) => value - back[k]);
      // Half steps converge where displacements change quickly, too.
      guess = guess.map((value, k) => (value + next[k]) / 2);
    }
    return guess;
  }
};
