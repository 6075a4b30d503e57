// Viewer: the scan, the position of its planes, window and overlay.
lungmix.Viewer = class {
  constructor(root) {
    const { byId } = lungmix;
    this.root = root;
    this.hex = root.dataset.colors.split(",");
    this.names = root.dataset.names.split(",");
    this.colors = new Uint32Array([0, ...this.hex.map(lungmix.Viewer.pixel)]);
    this.tissue = Number(root.dataset.posterior || 0);
    this.select = byId("scan");
    this.state = byId("state");
    this.position = [0, 0, 0];
    this.waiting = new Map();
    this.planes = [...root.querySelectorAll(".plane")].map((figure) => new lungmix.Plane(figure, this));
    lungmix.deliver = (delivered) => this.receive(delivered);

    this.select.addEventListener("change", () => this.open(this.select.value));
    byId("before").addEventListener("click", () => this.turn(-1));
    byId("after").addEventListener("click", () => this.turn(1));
    for (const input of root.querySelectorAll(".choice input, #overlay, #opacity, #cross")) {
      input.addEventListener("input", () => this.applyControls());
    }
    const resized = new ResizeObserver(() => {
      if (!this.volume) return;
      this.planes.forEach((plane) => plane.paint());
      this.drawHistogram();
    });
    resized.observe(root.querySelector(".planes"));
    this.applyControls();
  }

  // Bytes of canvas pixels are in the order red, green, blue, alpha.
  static pixel(hex) {
    const value = parseInt(hex.slice(1), 16);
    return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  }

  applyControls() {
    const { byId } = lungmix;
    const window = this.root.querySelector("input[name=window]:checked");
    this.window = { name: window.value, low: Number(window.dataset.low), high: Number(window.dataset.high) };
    this.labels = this.root.querySelector("input[name=labels]:checked").value;
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

  // Values of the volume that the overlay shows, and the pixel of the screen for each value.
  overlay() {
    const { volume } = this;
    if (!this.showsPosterior()) return [volume[this.shownLabels()], this.colors];
    // The lowest byte of a pixel is red, the highest alpha: the probability is the opacity.
    const color = this.colors[this.tissue] & 0xffffff;
    const steps = volume.posteriorSteps;
    const shades = Uint32Array.from({ length: steps + 1 }, (_, i) => ((Math.round((255 * i) / steps) << 24) | color) >>> 0);
    return [volume.posterior, shades];
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

  turn(step) {
    const count = this.select.options.length;
    this.select.selectedIndex = (this.select.selectedIndex + step + count) % count;
    this.open(this.select.value);
  }

  // Load the file of a scan, which calls `deliver`, and show it, at an axial slice if one is given. Only the scan in
  // view is kept in memory.
  async open(name, slice) {
    const option = [...this.select.options].find((entry) => entry.value === name);
    if (!option) return;
    this.select.value = name;
    this.requested = name;
    this.root.setAttribute("aria-busy", "true");
    this.state.textContent = `loading ${name} …`;
    try {
      const delivered = await this.load(name, option.dataset.stamp);
      const volume = await lungmix.Volume.of(delivered.volume);
      // Only the last requested scan is shown.
      if (this.requested !== name) return;
      this.show(delivered, volume, slice);
    } catch (error) {
      if (this.requested !== name) return;
      this.state.textContent = `${name} cannot be shown: data/${name}.js is missing or unreadable`;
    } finally {
      if (this.requested === name) this.root.removeAttribute("aria-busy");
    }
  }

  load(name, stamp) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      this.waiting.set(name, resolve);
      script.src = `data/${encodeURIComponent(name)}.js?${stamp}`;
      script.onload = () => script.remove();
      script.onerror = () => {
        script.remove();
        reject(new Error(name));
      };
      document.head.append(script);
    });
  }

  receive(delivered) {
    const resolve = this.waiting.get(delivered.case);
    this.waiting.delete(delivered.case);
    if (resolve) resolve(delivered);
  }

  show(delivered, volume, slice) {
    this.name = delivered.case;
    this.volume = volume;
    this.position = volume.centre();
    if (slice !== undefined) this.position[0] = volume.nearest(Number(slice));
    this.planes.forEach((plane) => plane.begin());
    this.draw();
    this.counts = delivered.histogram;
    this.drawHistogram();
    this.listFacts(delivered);
    this.drawZones(delivered.zones);
    this.state.textContent = `${this.name} is shown`;
    for (const row of document.querySelectorAll("#cases tr[aria-current]")) row.removeAttribute("aria-current");
    const row = lungmix.rowOf(this.name);
    if (row) row.setAttribute("aria-current", "true");
  }

  draw() {
    if (!this.volume) return;
    this.updateGreyTable();
    this.planes.forEach((plane) => plane.draw());
  }

  drawHistogram() {
    const element = lungmix.byId("histogram");
    element.replaceChildren(lungmix.histogram(this.counts, this.hex, this.names, element.clientWidth));
  }

  drawZones(zones) {
    const figure = lungmix.byId("zones");
    figure.hidden = !zones;
    if (zones) figure.firstElementChild.replaceChildren(lungmix.zones(zones, Number(figure.dataset.largest)));
  }

  valueText([z, y, x]) {
    const index = (z * this.volume.shape[1] + y) * this.volume.shape[2] + x;
    const value = this.overlay()[0][index];
    const hu = lungmix.minus(Math.round(this.volume.hu(z, y, x) / 10) * 10);
    if (this.showsPosterior()) {
      const inside = this.volume.voxel[index] || value;
      const percent = Math.round((100 * value) / this.volume.posteriorSteps);
      return `≈ ${hu} HU${inside ? `, ${this.names[this.tissue - 1].toLowerCase()} ${percent} %` : ""}`;
    }
    return `≈ ${hu} HU${value ? `, ${this.names[value - 1].toLowerCase()}` : ""}`;
  }

  settingsText() {
    let labels = { voxel: "voxel-wise labels", median: "median labels", potts: "labels under a Potts prior" }[this.shownLabels()];
    if (this.showsPosterior()) labels = `posterior of ${this.names[this.tissue - 1].toLowerCase()}`;
    return `${this.window.name} window, ${this.opacity > 0 ? labels : "no labels"}`;
  }

  listFacts(delivered) {
    const row = lungmix.rowOf(this.name);
    const textOf = (key) => {
      const cell = row && [...row.cells].find((entry) => entry.dataset.key === key);
      return cell ? cell.textContent.trim() : "";
    };
    for (const item of document.querySelectorAll("#tissues li")) {
      const text = textOf(item.dataset.key);
      item.querySelector("output").textContent = text && `${text} %`;
    }
    const { size, spacing } = delivered.geometry;
    const facts = [
      ["Lung involvement", textOf("lung_involvement"), "%"],
      ["Score S", textOf("score"), ""],
      ["Lung volume", textOf("lung_ml"), "mL"],
      ["Right + left", textOf("both_ml"), "mL"],
      ["Mean density", textOf("mean_hu"), "HU"],
      ["LAA −950", textOf("laa950"), "%"],
      ["Perc15", textOf("perc15"), "HU"],
      ["Size", size.join(" × "), "voxels"],
      ["Spacing", spacing.map((mm) => Number(mm.toPrecision(3))).join(" × "), "mm"],
      ["Scanner", delivered.scanner, ""],
      ["To look at", textOf("flags"), ""],
    ];
    const list = lungmix.byId("facts");
    list.replaceChildren();
    for (const [name, text, unit] of facts) {
      if (!text) continue;
      list.append(lungmix.make("dt", {}, name), lungmix.make("dd", {}, unit ? `${text} ${unit}` : text));
    }
  }
};
