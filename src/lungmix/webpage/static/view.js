// View of one scan: three planes at one position, drawn as the controls of the page say.
lungmix.View = class {
  // `root` contains the planes, `controls` the inputs for window and overlay, which several views may share. The
  // element with `data-colors` around `root` lists colours and names of the tissues.
  constructor(root, controls) {
    const { dataset } = root.closest("[data-colors]");
    this.root = root;
    this.controls = controls;
    this.report = dataset.report;
    this.hex = dataset.colors.split(",");
    this.names = dataset.names.split(",");
    this.colors = new Uint32Array([0, ...this.hex.map(lungmix.View.pixel)]);
    this.tissue = Number(dataset.posterior || 0);
    this.state = root.querySelector(".state");
    this.position = [0, 0, 0];
    // Called with this view after its position was changed by a reader.
    this.onMove = () => {};
    this.planes = [...root.querySelectorAll(".plane")].map((figure) => new lungmix.Plane(figure, this));
    for (const input of controls.querySelectorAll(".choice input, #overlay, #opacity, #cross")) {
      input.addEventListener("input", () => this.applyControls());
    }
    const resized = new ResizeObserver(() => this.volume && this.resize());
    for (const plane of this.planes) resized.observe(plane.figure);
    this.applyControls();
  }

  // Bytes of canvas pixels are in the order red, green, blue, alpha.
  static pixel(hex) {
    const value = parseInt(hex.slice(1), 16);
    return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  }

  applyControls() {
    const { byId } = lungmix;
    const window = this.controls.querySelector("input[name=window]:checked");
    this.window = { name: window.value, low: Number(window.dataset.low), high: Number(window.dataset.high) };
    this.labels = this.controls.querySelector("input[name=labels]:checked").value;
    const shown = byId("overlay").checked;
    byId("opacity").disabled = !shown;
    this.opacity = shown ? Number(byId("opacity").value) / 100 : 0;
    this.cross = byId("cross").checked;
    this.draw();
  }

  // Table from grey values of the volume to pixels of the screen.
  updateGreyTable() {
    const { lowest, step } = this.volume;
    const { low, high } = this.window;
    this.table = new Uint32Array(256);
    for (let grey = 0; grey < 256; grey++) {
      const shown = Math.round(255 * lungmix.clamp((lowest + step * grey - low) / (high - low), 0, 1));
      this.table[grey] = ((255 << 24) | (shown << 16) | (shown << 8) | shown) >>> 0;
    }
  }

  // Values of the volume that the overlay shows, the pixel of the screen for each value, and the names of the values.
  overlay() {
    const { volume } = this;
    if (!this.showsPosterior()) return [volume[this.shownLabels()], this.colors, this.names];
    // The lowest byte of a pixel is red, the highest alpha: the probability is the opacity.
    const color = this.colors[this.tissue] & 0xffffff;
    const steps = volume.posteriorSteps;
    const shades = Uint32Array.from({ length: steps + 1 }, (_, i) => ((Math.round((255 * i) / steps) << 24) | color) >>> 0);
    return [volume.posterior, shades, []];
  }

  // Labels by a mixture without tissues have no posteriors of them; their median labels are shown instead.
  showsPosterior() {
    return this.labels === "posterior" && Boolean(this.volume && this.volume.posterior);
  }

  // Name of the label map that is shown; scans without labels under a Potts prior show their median labels.
  shownLabels() {
    if (this.labels === "potts" && this.volume && this.volume.potts) return "potts";
    return this.labels === "voxel" ? "voxel" : "median";
  }

  // Load the file of a scan and show it, at an axial slice if one is given. Only the scan in view is kept in memory.
  async open(name, stamp, slice) {
    this.requested = name;
    this.root.setAttribute("aria-busy", "true");
    this.tell(`loading ${name} …`);
    try {
      const delivered = await lungmix.load(this.report, "data", name, stamp);
      const volume = await lungmix.Volume.of(delivered.volume);
      // Only the last requested scan is shown.
      if (this.requested !== name) return;
      await this.show(delivered, volume, slice);
    } catch (error) {
      if (this.requested !== name) return;
      this.tell(`${name} cannot be shown: data/${name}.js is missing or unreadable`, true);
    } finally {
      if (this.requested === name) this.root.removeAttribute("aria-busy");
    }
  }

  show(delivered, volume, slice) {
    this.name = delivered.case;
    this.volume = volume;
    this.position = volume.centre();
    if (slice !== undefined) this.position[0] = volume.nearest(Number(slice));
    this.planes.forEach((plane) => plane.begin());
    this.draw();
    this.tell(`${this.name} is shown`);
  }

  tell(text, isProblem = false) {
    this.state.textContent = text;
    this.state.classList.toggle("problem", isProblem);
  }

  // Show another position, on request of a reader.
  moveTo(position) {
    this.position = position;
    this.draw();
    this.onMove(this);
  }

  draw() {
    if (!this.volume) return;
    this.updateGreyTable();
    this.planes.forEach((plane) => plane.draw());
  }

  resize() { this.planes.forEach((plane) => plane.paint()); }

  valueText([z, y, x]) {
    const index = (z * this.volume.shape[1] + y) * this.volume.shape[2] + x;
    const [values, , names] = this.overlay();
    const value = values[index];
    const hu = lungmix.minus(Math.round(this.volume.hu(z, y, x) / 10) * 10);
    if (this.showsPosterior()) {
      const inside = this.volume.voxel[index] || value;
      const percent = Math.round((100 * value) / this.volume.posteriorSteps);
      return `≈ ${hu} HU${inside ? `, ${this.names[this.tissue - 1].toLowerCase()} ${percent} %` : ""}`;
    }
    return `≈ ${hu} HU${value ? `, ${names[value - 1].toLowerCase()}` : ""}`;
  }

  labelsText() {
    if (this.showsPosterior()) return `posterior of ${this.names[this.tissue - 1].toLowerCase()}`;
    return { voxel: "voxel-wise labels", median: "median labels", potts: "labels under a Potts prior" }[this.shownLabels()];
  }

  settingsText() { return `${this.window.name} window, ${this.opacity > 0 ? this.labelsText() : "no labels"}`; }
};

// Draw the sketches of lung zones and lobes of a scan in two figures, which are hidden for scans without them.
lungmix.drawZones = function (id, delivered) {
  for (const [name, draw] of [[id, "zones"], [`${id}-lobes`, "lobes"]]) {
    const figure = lungmix.byId(name);
    const values = delivered[draw];
    figure.hidden = !values;
    if (values) figure.firstElementChild.replaceChildren(lungmix[draw](values, Number(figure.dataset.largest), figure.id));
  }
};
