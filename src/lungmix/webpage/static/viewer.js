// Viewer of a cohort: the view of one scan, which is chosen from all, with its histogram and measurements.
lungmix.Viewer = class extends lungmix.View {
  constructor(root) {
    super(root, root);
    const { byId } = lungmix;
    this.select = byId("scan");
    this.select.addEventListener("change", () => this.open(this.select.value));
    byId("before").addEventListener("click", () => this.turn(-1));
    byId("after").addEventListener("click", () => this.turn(1));
  }

  turn(step) {
    const count = this.select.options.length;
    this.select.selectedIndex = (this.select.selectedIndex + step + count) % count;
    this.open(this.select.value);
  }

  async open(name, slice) {
    const option = [...this.select.options].find((entry) => entry.value === name);
    if (!option) return;
    this.select.value = name;
    await super.open(name, option.dataset.stamp, slice);
  }

  show(delivered, volume, slice) {
    super.show(delivered, volume, slice);
    this.counts = delivered.histogram;
    this.drawHistogram();
    this.listFacts(delivered);
    lungmix.drawZones("zones", delivered);
    for (const row of document.querySelectorAll("#cases tr[aria-current]")) row.removeAttribute("aria-current");
    const row = lungmix.rowOf(this.name);
    if (row) row.setAttribute("aria-current", "true");
  }

  resize() {
    super.resize();
    this.drawHistogram();
  }

  drawHistogram() {
    // Planes may change their size before the first scan is shown completely.
    if (!this.counts) return;
    const element = lungmix.byId("histogram");
    element.replaceChildren(lungmix.histogram(this.counts, this.hex, this.names, element.clientWidth));
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
