// Volume of a scan: arrays of grey values and labels, and of posteriors and labels under a Potts prior if the report has them, decoded from the sheets of slices in its data file.
lungmix.Volume = class {
  static async of(delivered) {
    const volume = new lungmix.Volume();
    const { shape, columns, axes, lowest, step, classes, spread } = delivered;
    Object.assign(volume, { shape, axes, lowest, step });
    const grey = await lungmix.Volume.unroll(delivered.grey, shape, columns);
    const both = await lungmix.Volume.unroll(delivered.labels, shape, columns);
    volume.grey = grey;
    volume.voxel = new Uint8Array(both.length);
    volume.median = new Uint8Array(both.length);
    for (let i = 0; i < both.length; i++) {
      const value = Math.round(both[i] / spread);
      volume.voxel[i] = Math.floor(value / classes);
      volume.median[i] = value % classes;
    }
    if (delivered.posterior) {
      const sheet = await lungmix.Volume.unroll(delivered.posterior, shape, columns);
      const { posteriorSpread, posteriorSteps } = delivered;
      volume.posterior = sheet.map((value) => Math.round(value / posteriorSpread));
      volume.posteriorSteps = posteriorSteps;
    }
    if (delivered.potts) {
      const sheet = await lungmix.Volume.unroll(delivered.potts, shape, columns);
      volume.potts = sheet.map((value) => Math.round(value / spread));
    }
    return volume;
  }

  // Browsers let scripts read the pixels of embedded images, but not of image files opened from disk.
  static async unroll(text, [depth, height, width], columns) {
    const image = new Image();
    image.src = `data:image/webp;base64,${text}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = columns * width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const out = new Uint8Array(depth * height * width);
    for (let first = 0; first < depth; first += columns) {
      // One row of the sheet at a time: mobile browsers limit the size of a canvas.
      context.drawImage(image, 0, -(first / columns) * height);
      const pixels = context.getImageData(0, 0, canvas.width, height).data;
      for (let tile = 0; tile < columns && first + tile < depth; tile++) {
        const base = (first + tile) * height * width;
        for (let y = 0; y < height; y++) {
          let from = 4 * (y * canvas.width + tile * width);
          for (let x = 0; x < width; x++, from += 4) out[base + y * width + x] = pixels[from];
        }
      }
    }
    return out;
  }

  hu(z, y, x) {
    return this.lowest + this.step * this.grey[(z * this.shape[1] + y) * this.shape[2] + x];
  }

  // Stored index of a slice along an axis (0 is z).
  stored(axis, index) {
    const { first, step, size } = this.axes[axis];
    return lungmix.clamp(Math.round(first + step * index), 0, size - 1);
  }

  // Index of the slice nearest to an axial slice of the scan at full size, which is counted from the feet.
  nearest(slice) {
    const { first, step, size } = this.axes[0];
    const start = step > 0 ? first : size - 1 - first;
    return lungmix.clamp(Math.round((slice - start) / Math.abs(step)), 0, this.shape[0] - 1);
  }

  // Number of lung voxels of each slice along each axis.
  get profiles() {
    if (this.counted) return this.counted;
    const [depth, height, width] = this.shape;
    const sums = this.shape.map((n) => new Float64Array(n));
    for (let z = 0, i = 0; z < depth; z++) {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          if (this.voxel[i]) {
            sums[0][z]++;
            sums[1][y]++;
            sums[2][x]++;
          }
        }
      }
    }
    this.counted = sums;
    return sums;
  }

  // First and last slice of the lungs along each axis, without slices that have next to no lung, such as those of a
  // trachea in the mask; null without lungs.
  get lungs() {
    const ends = this.profiles.map((sums) => {
      const limit = 0.02 * Math.max(...sums);
      const inside = (n) => n > limit;
      return [sums.findIndex(inside), sums.findLastIndex(inside)];
    });
    return ends.every(([first]) => first >= 0) ? ends : null;
  }

  // Axial slice with most lung, median coronal slice of both lungs, and median sagittal slice of the right lung.
  centre() {
    const sums = this.profiles;
    const quantile = (sum, share) => {
      const limit = share * sum.reduce((a, b) => a + b, 0);
      let seen = 0;
      return Math.max(0, sum.findIndex((n) => (seen += n) >= limit));
    };
    return [Math.max(0, sums[0].indexOf(Math.max(...sums[0]))), quantile(sums[1], 0.5), quantile(sums[2], 0.25)];
  }
};

// Axes of each plane: normal, rows and columns. Rows of upright planes begin at the head, and the patient's right is on
// the left of the screen (radiological convention).
lungmix.PLANES = {
  axial: { along: 0, rows: 1, columns: 2, upright: false },
  coronal: { along: 1, rows: 0, columns: 2, upright: true },
  sagittal: { along: 2, rows: 0, columns: 1, upright: true },
};
