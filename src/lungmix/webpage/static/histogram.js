// Draw the histogram of a scan with the components of the mixture, as SVG.
lungmix.histogram = function (data, colors, names, wide) {
  const { make } = lungmix;
  const [width, height, left, bottom, top] = [Math.max(280, wide), 280, 40, 34, 12];
  const right = 16;
  const end = data.first + data.width * data.shares.length;
  const highest = 1.08 * Math.max(...data.shares, ...data.components.flat(), 1e-6);
  const x = (hu) => left + ((hu - data.first) / (end - data.first)) * (width - left - right);
  // The square-root scale shows small components of dense tissue.
  const y = (share) => height - bottom - Math.sqrt(Math.max(share, 0) / highest) * (height - bottom - top);
  const colorOf = (k) => (data.components.length === colors.length ? colors[k] : "#8795a1");

  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "h-title h-text" });
  const peak = data.first + data.width * (data.shares.indexOf(Math.max(...data.shares)) + 0.5);
  svg.append(make("title", { id: "h-title" }, "Histogram of HU in the lungs"));
  svg.append(make("desc", { id: "h-text" },
    `Highest near ${Math.round(peak)} HU. ${data.below} percent of voxels lie below ${data.first} HU, ` +
    `${data.above} percent from ${end} HU on. Components: ${names.join(", ")}.`));

  for (const share of [0.5, 2, 4, 6, 10, 20, 40]) {
    if (share >= highest) continue;
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }));
    svg.append(make("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${share}`));
  }
  svg.append(make("text", { x: left + 4, y: top + 2 }, "‰ per HU"));
  data.shares.forEach((share, i) => {
    if (!share) return;
    const hu = data.first + i * data.width;
    const fill = data.labels.length ? colorOf(data.labels[i] - 1) : "#8795a1";
    svg.append(make("rect", { class: "bin", x: x(hu), y: y(share), width: x(hu + data.width) - x(hu) + 0.2,
      height: height - bottom - y(share), fill }));
  });
  data.components.forEach((part, k) => {
    const points = part.map((share, i) => `${x(data.first + (i + 0.5) * data.width).toFixed(1)},${y(share).toFixed(1)}`);
    svg.append(make("path", { class: "halo", d: `M${points.join("L")}` }));
    svg.append(make("path", { class: "part", d: `M${points.join("L")}`, stroke: colorOf(k) }));
  });
  svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  for (let hu = data.first; hu <= end; hu += width < 480 ? 400 : 200) {
    svg.append(make("text", { x: x(hu), y: height - bottom + 16, "text-anchor": "middle" }, lungmix.minus(hu)));
  }
  svg.append(make("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, "HU"));
  return svg;
};
