// Two scans of a patient side by side. A move in one moves the other to the corresponding position.
lungmix.Pair = class {
  constructor(root) {
    const controls = lungmix.byId("controls");
    this.root = root;
    this.rule = lungmix.byId("link-rule");
    this.sides = ["first", "second"].map((side) => {
      const view = new lungmix.PairedView(root.querySelector(`.${side}`), controls);
      const select = lungmix.byId(side);
      view.onMove = () => this.follow(view);
      view.onShow = () => this.align(view);
      select.addEventListener("change", () => this.open(view, select));
      return { view, select };
    });
    this.views = this.sides.map((side) => side.view);
    this.linked = lungmix.byId("linked");
    this.linked.addEventListener("change", () => this.follow(this.views[0]));
    for (const { view, select } of this.sides) this.open(view, select);
  }

  open(view, select) {
    const { value, dataset } = select.selectedOptions[0];
    view.title = dataset.title;
    view.open(value, dataset.stamp, dataset.change);
  }

  other(view) { return this.views.find((entry) => entry !== view); }

  // Function from positions in one view to those in the other: by registrations where both scans have one.
  linkBetween(from, to) {
    const firsts = [from, to].map((view) => (view.registration ? view.registration.case : view.name));
    const isRegistered = firsts[0] === firsts[1] && (from.registration || to.registration);
    this.rule.textContent = isRegistered ? this.rule.dataset.registered : this.rule.dataset.lungs;
    if (isRegistered) return lungmix.link.byRegistration(from.registration, to.registration);
    return lungmix.link.byLungs(from.volume, to.volume);
  }

  // Move the other scan to the position that corresponds to that of a view.
  follow(view) {
    const other = this.other(view);
    if (!this.linked.checked || !view.volume || !other.volume) return;
    const position = this.linkBetween(view, other)(view.position);
    other.place(position.map((index, axis) => lungmix.clamp(Math.round(index), 0, other.volume.shape[axis] - 1)));
  }

  // A scan that is shown newly takes its position from the other one.
  align(view) {
    const other = this.other(view);
    for (const [shown, later] of [[view, other], [other, view]]) {
      const isFirst = later.registration && later.registration.case === shown.name;
      shown.change = isFirst ? later.delivered : null;
      shown.draw();
    }
    this.follow(other.volume ? other : view);
  }
};

lungmix.PairedView = class extends lungmix.View {
  constructor(root, controls) {
    super(root, controls);
    this.onShow = () => {};
  }

  // With the stamp of a change map, load that and the registration, too.
  async open(name, stamp, change) {
    this.loading = change ? lungmix.PairedView.changeOf(this.report, name, change) : null;
    await super.open(name, stamp);
  }

  static async changeOf(report, name, stamp) {
    const delivered = await lungmix.load(report, "changes", name, stamp);
    const { labels, shape, columns, spread } = delivered.change;
    const sheet = await lungmix.Volume.unroll(labels, shape, columns);
    return { registration: new lungmix.Registration(delivered), values: sheet.map((value) => Math.round(value / spread)) };
  }

  async show(delivered, volume) {
    // Without the file of changes, scans are shown and linked by their lungs.
    const changes = await Promise.resolve(this.loading).catch(() => null);
    if (this.requested !== delivered.case) return;
    this.registration = changes && changes.registration;
    this.delivered = changes && changes.values;
    super.show(delivered, volume);
    // Figures of both scans alternate on narrow screens, so each says which scan it shows.
    for (const caption of this.root.querySelectorAll("figcaption")) caption.dataset.scan = this.title;
    lungmix.drawZones(this.root.querySelector(".zones").id, delivered);
    this.onShow();
  }

  // Show a position that the other scan asks for.
  place(position) {
    this.position = position;
    this.draw();
  }

  // The change map belongs to the first scan; a later scan shows its median labels beside it.
  overlay() {
    if (this.labels !== "change" || !this.change) return super.overlay();
    const { changeColors, changeNames } = this.root.closest("[data-colors]").dataset;
    const colors = new Uint32Array([0, ...changeColors.split(",").map(lungmix.View.pixel)]);
    return [this.change, colors, changeNames.split(";")];
  }

  labelsText() { return this.labels === "change" && this.change ? "change map" : super.labelsText(); }

  draw() {
    super.draw();
    if (this.volume) this.root.querySelector(".at").textContent = this.valueText(this.position);
  }
};

(function () {
  const root = lungmix.byId("pair");
  if (root) lungmix.pair = new lungmix.Pair(root);
})();
