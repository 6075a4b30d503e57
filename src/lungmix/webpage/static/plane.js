// One of the three planes: its canvas, its slider and their events.
lungmix.Plane = class {
  constructor(figure, view) {
    this.name = figure.dataset.plane;
    this.view = view;
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.slider = figure.querySelector("input");
    this.number = figure.querySelector(".number");
    this.readout = figure.querySelector(".where");
    Object.assign(this, lungmix.PLANES[this.name]);
    this.grey = document.createElement("canvas");
    this.over = document.createElement("canvas");
    this.listen();
  }

  listen() {
    const { canvas } = this;
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
        Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.move(step);
    });
    let rest = 0;
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || !this.view.volume) return;
      // Touchpads send many small steps, mice few large ones.
      rest += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
      const step = Math.trunc(rest);
      const next = this.at - step;
      // At the first and the last slice the wheel scrolls the page.
      if (next < 0 && this.at === 0) return;
      if (next >= this.count && this.at === this.count - 1) return;
      event.preventDefault();
      rest -= step;
      if (step) this.move(-step);
    }, { passive: false });
    this.listenToTouch();
    canvas.addEventListener("click", (event) => this.moveTo(event));
    canvas.addEventListener("pointermove", (event) => this.showValue(event));
    canvas.addEventListener("pointerleave", () => { this.readout.textContent = ""; });
  }

  // Sideways swipes change the slice; vertical ones scroll the page (touch-action in the style sheet).
  listenToTouch() {
    const { canvas } = this;
    let begin = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse") return;
      begin = { x: event.clientX, at: this.at };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!begin || event.pointerType === "mouse") return;
      const share = (event.clientX - begin.x) / canvas.clientWidth;
      this.go(begin.at + Math.round(share * this.count));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { begin = null; });
  }

  get at() { return this.view.position[this.along]; }

  get count() { return this.view.volume ? this.view.volume.shape[this.along] : 0; }

  move(step) { this.go(lungmix.clamp(this.at + step, 0, this.count - 1)); }

  go(index) {
    if (!this.view.volume) return;
    const position = [...this.view.position];
    position[this.along] = lungmix.clamp(index, 0, this.count - 1);
    this.view.moveTo(position);
  }

  // Adapt to a new scan: number of slices, aspect ratio, directions.
  begin() {
    const { volume } = this.view;
    this.width = volume.shape[this.columns];
    this.height = volume.shape[this.rows];
    this.size = [this.width * volume.axes[this.columns].spacing, this.height * volume.axes[this.rows].spacing];
    this.figure.style.setProperty("--shape", `${this.size[0]} / ${this.size[1]}`);
    for (const canvas of [this.grey, this.over]) {
      canvas.width = this.width;
      canvas.height = this.height;
    }
    this.slider.max = this.count - 1;
    const [left, right] = volume.axes[this.columns].ends;
    const ends = volume.axes[this.rows].ends;
    const [top, bottom] = this.upright ? [ends[1], ends[0]] : ends;
    this.ends = { left, right, top, bottom };
    for (const [side, letter] of Object.entries(this.ends)) {
      this.figure.querySelector(`.${side}`).textContent = letter;
    }
  }

  // Index in the volume of the first voxel of a row of the screen, and the step to the next.
  strides(row) {
    const [, height, width] = this.view.volume.shape;
    const steps = [height * width, width, 1];
    const shown = this.upright ? this.height - 1 - row : row;
    return [this.at * steps[this.along] + shown * steps[this.rows], steps[this.columns]];
  }

  draw() {
    const { volume, table } = this.view;
    if (!volume) return;
    const [values, colors] = this.view.overlay();
    const grey = new ImageData(this.width, this.height);
    const over = new ImageData(this.width, this.height);
    const greys = new Uint32Array(grey.data.buffer);
    const overs = new Uint32Array(over.data.buffer);
    for (let row = 0, k = 0; row < this.height; row++) {
      let [i, step] = this.strides(row);
      for (let column = 0; column < this.width; column++, k++, i += step) {
        greys[k] = table[volume.grey[i]];
        overs[k] = colors[values[i]];
      }
    }
    this.grey.getContext("2d").putImageData(grey, 0, 0);
    this.over.getContext("2d").putImageData(over, 0, 0);
    this.paint();
    this.describe();
  }

  paint() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    const scale = Math.min(canvas.width / this.size[0], canvas.height / this.size[1]);
    const [w, h] = this.size.map((mm) => mm * scale);
    this.box = [(canvas.width - w) / 2, (canvas.height - h) / 2, w, h];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.grey, ...this.box);
    if (this.view.opacity > 0) {
      context.globalAlpha = this.view.opacity;
      // Labels are not interpolated.
      context.imageSmoothingEnabled = false;
      context.drawImage(this.over, ...this.box);
      context.globalAlpha = 1;
    }
    if (this.view.cross) this.paintCross(context, ratio);
  }

  paintCross(context, ratio) {
    const { position } = this.view;
    const [left, top, w, h] = this.box;
    const row = this.upright ? this.height - 1 - position[this.rows] : position[this.rows];
    const x = left + ((position[this.columns] + 0.5) / this.width) * w;
    const y = top + ((row + 0.5) / this.height) * h;
    context.strokeStyle = "rgba(120, 200, 255, 0.55)";
    context.lineWidth = ratio;
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(left + w, y);
    context.moveTo(x, top);
    context.lineTo(x, top + h);
    context.stroke();
  }

  // Voxel under the pointer; null outside the image.
  voxelAt(event) {
    if (!this.box) return null;
    const bounds = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / bounds.width;
    const x = ((event.clientX - bounds.left) * ratio - this.box[0]) / this.box[2];
    const y = ((event.clientY - bounds.top) * ratio - this.box[1]) / this.box[3];
    if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
    const row = Math.floor(y * this.height);
    const voxel = [...this.view.position];
    voxel[this.columns] = Math.floor(x * this.width);
    voxel[this.rows] = this.upright ? this.height - 1 - row : row;
    return voxel;
  }

  moveTo(event) {
    const voxel = this.voxelAt(event);
    if (voxel) this.view.moveTo(voxel);
  }

  showValue(event) {
    const voxel = this.view.volume && this.voxelAt(event);
    this.readout.textContent = voxel ? this.view.valueText(voxel) : "";
  }

  describe() {
    const { volume } = this.view;
    const axis = volume.axes[this.along];
    const stored = volume.stored(this.along, this.at);
    this.slider.value = this.at;
    this.number.textContent = `${axis.name} ${stored} of ${axis.size - 1}`;
    const text = `${this.name}, slice ${this.at + 1} of ${this.count}, ${axis.name} ${stored} of the scan`;
    this.slider.setAttribute("aria-valuetext", text);
    const { left, right, top, bottom } = this.ends;
    this.canvas.setAttribute("aria-label",
      `${this.view.name}, ${text}; ${left} is left, ${right} right, ${top} up, ${bottom} down; ${this.view.settingsText()}`);
  }
};
