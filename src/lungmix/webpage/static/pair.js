// Two scans of a patient side by side. A move in one moves the other to the corresponding position.
lungmix.Pair = class {
  constructor(root) {
    const controls = lungmix.byId("controls");
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
    const option = select.selectedOptions[0];
    view.title = option.dataset.title;
    view.open(option.value, option.dataset.stamp);
  }

  other(view) { return this.views.find((entry) => entry !== view); }

  // Move the other scan to the position that corresponds to that of a view.
  follow(view) {
    const other = this.other(view);
    if (!this.linked.checked || !view.volume || !other.volume) return;
    const position = lungmix.link.byLungs(view.volume, other.volume)(view.position);
    other.place(position.map((index, axis) => lungmix.clamp(Math.round(index), 0, other.volume.shape[axis] - 1)));
  }

  // A scan that is shown newly takes its position from the other one.
  align(view) {
    const other = this.other(view);
    this.follow(other.volume ? other : view);
  }
};

lungmix.PairedView = class extends lungmix.View {
  constructor(root, controls) {
    super(root, controls);
    this.onShow = () => {};
  }

  show(delivered, volume) {
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

  draw() {
    super.draw();
    if (this.volume) this.root.querySelector(".at").textContent = this.valueText(this.position);
  }
};

(function () {
  const root = lungmix.byId("pair");
  if (root) lungmix.pair = new lungmix.Pair(root);
})();
