// Sketches of both lungs from the front, whose parts have the colour of their lung involvement. The right lung of the
// patient is on the left. `id` begins the identifiers of a sketch, which are unique on a page.
{
  const { make } = lungmix;
  const top = 26;
  const height = 264;
  const width = 150;
  // Outline of the right lung in a box of this width and height; the left lung is its mirror image with a notch.
  const shapes = {
    right: "M 96 0 C 134 4 146 60 148 120 L 150 236 C 118 220 58 222 2 264 C -4 180 8 70 52 18 C 66 4 80 -1 96 0 Z",
    left: "M 54 0 C 16 4 4 60 2 118 C 2 148 26 156 30 186 C 33 208 22 222 14 232 C 48 222 92 222 148 264 C 154 180 142 70 98 18 C 84 4 70 -1 54 0 Z",
  };
  const number = (value) => (value === undefined ? "" : value.toFixed(value < 10 ? 1 : 0));

  // `partsOf` returns the parts of a side, each with its name, text, shape, and the position of its number; `add` draws
  // what else belongs to a side.
  const sketch = (values, largest, id, title, partsOf, add) => {
    const svg = make("svg", { viewBox: "0 0 400 320", role: "img", "aria-labelledby": `${id}-title ${id}-desc` });
    svg.append(make("title", { id: `${id}-title` }, title));
    const texts = Object.entries(values).map(([name, value]) => `${name.replaceAll("_", " ")} ${value.toFixed(1)} %`);
    svg.append(make("desc", { id: `${id}-desc` }, texts.join(", ")));
    for (const [side, left] of [["right", 20], ["left", 230]]) {
      const lung = make("g", { transform: `translate(${left} ${top})` });
      const clip = make("clipPath", { id: `${id}-${side}` });
      clip.append(make("path", { d: shapes[side] }));
      const cells = make("g", { "clip-path": `url(#${id}-${side})` });
      const words = make("g");
      for (const part of partsOf(side)) {
        const value = values[part.name];
        const share = value === undefined ? 0 : lungmix.clamp(value / largest, 0, 1);
        part.shape.setAttribute("fill", value === undefined ? "none" : `hsl(${48 - 46 * share} ${85 - 10 * share}% ${84 - 50 * share}%)`);
        part.shape.append(make("title", {}, `${part.text}: ${number(value) || "no voxels"}${value === undefined ? "" : " %"}`));
        cells.append(part.shape);
        // White and dark text have the same contrast, 4, on the colour of a share of 0.7.
        words.append(make("text", { class: "value", x: part.x, y: part.y, fill: share > 0.7 ? "#ffffff" : "#222222" }, number(value)));
      }
      lung.append(clip, cells, make("path", { class: "rim", d: shapes[side] }), words);
      lung.append(make("text", { class: "side", x: width / 2, y: -12 }, side === "right" ? "Right" : "Left"));
      add(side, lung, cells);
      svg.append(lung);
    }
    return svg;
  };

  // Each third of a lung with its ventral and dorsal half.
  lungmix.zones = function (values, largest, id) {
    const halves = ["ventral", "dorsal"];
    const partsOf = (side) => ["upper", "middle", "lower"].flatMap((third, row) => halves.map((half, column) => ({
      name: `${side}_${third}_${half}`,
      text: `${side} lung, ${third} third, ${half} half`,
      shape: make("rect", { x: -10 + column * (width / 2 + 10), y: row * (height / 3), width: width / 2 + 10, height: height / 3 }),
      // Numbers lie within the outline, which is narrow at the apex.
      x: { right: [[54, 108], [46, 112], [40, 112]], left: [[42, 96], [40, 104], [52, 110]] }[side][row][column],
      y: (row + [0.62, 0.52, 0.38][row]) * (height / 3) + 5,
    })));
    return sketch(values, largest, id, "Lung involvement by lung zone", partsOf, (side, lung, cells) => {
      for (const row of [1, 2]) cells.append(make("line", { class: "cut", x1: -10, x2: width + 10, y1: (row * height) / 3, y2: (row * height) / 3 }));
      cells.append(make("line", { class: "cut", x1: width / 2, x2: width / 2, y1: 0, y2: height }));
      halves.forEach((half, column) => {
        lung.append(make("text", { class: "half", x: width * (0.25 + 0.5 * column), y: height + 22 }, half[0].toUpperCase()));
      });
    });
  };

  // Lobes, cut where fissures lie in a view from the front: the lower lobes show below and at the side only.
  lungmix.lobes = function (values, largest, id) {
    const lobes = {
      right: [
        ["upper", "-10,-10 160,-10 160,134 -10,134", 82, 90],
        ["middle", "-10,134 160,134 160,270 112,270", 116, 174],
        ["lower", "-10,134 112,270 -10,290", 34, 212],
      ],
      left: [
        ["upper", "-10,-10 160,-10 160,120 20,270 -10,270", 72, 96],
        ["lower", "160,120 160,290 20,290 20,270", 110, 208],
      ],
    };
    const partsOf = (side) => lobes[side].map(([level, points, x, y]) => ({
      name: `${side}_${level}_lobe`, text: `${side} ${level} lobe`, shape: make("path", { d: `M ${points} Z`, class: "cut" }), x, y,
    }));
    return sketch(values, largest, id, "Lung involvement by lobe", partsOf, () => {});
  };
}
