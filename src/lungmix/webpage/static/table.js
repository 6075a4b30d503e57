// Table of the cohort: sort by a column, search in rows, show all columns.
lungmix.table = function (open) {
  const table = lungmix.byId("cases");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const search = lungmix.byId("search");
  const matches = lungmix.byId("found");
  const more = lungmix.byId("all-columns");
  const look = lungmix.byId("look-only");
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function keyOf(row, index) {
    const cell = row.cells[index];
    if ("value" in cell.dataset) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    return cell.textContent.trim() || null;
  }

  function sort(index) {
    const header = headers[index];
    const up = header.getAttribute("aria-sort") !== "ascending";
    const keyed = rows.map((row, position) => ({ row, position, key: keyOf(row, index) }));
    keyed.sort((a, b) => {
      // Rows without a value stay at the end in both directions.
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.position - b.position;
      const order = typeof a.key === "number" ? a.key - b.key : collator.compare(a.key, b.key);
      return (up ? order : -order) || a.position - b.position;
    });
    body.append(...keyed.map((entry) => entry.row));
    for (const other of headers) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      // Hidden columns are not searched.
      const shownCells = [...row.cells].filter((cell) => !cell.hidden);
      const text = shownCells.map((cell) => cell.textContent).join(" ").toLowerCase().replaceAll("−", "-");
      const wanted = !look || !look.checked || "look" in row.dataset;
      row.hidden = !wanted || !words.every((word) => text.includes(word.replaceAll("−", "-")));
      shown += !row.hidden;
    }
    matches.textContent = `${shown} of ${rows.length}`;
  }

  headers.forEach((header, index) => {
    const button = header.querySelector("button");
    if (button) button.addEventListener("click", () => sort(index));
  });
  search.addEventListener("input", filter);
  if (look) look.addEventListener("change", filter);
  if (more) {
    more.addEventListener("change", () => {
      for (const cell of table.querySelectorAll(".more")) cell.hidden = !more.checked;
      filter();
    });
  }
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (button) open(button.closest("tr").dataset.case);
  });
};

// Row of the table for a case.
lungmix.rowOf = function (name) {
  const table = lungmix.byId("cases");
  return table ? [...table.tBodies[0].rows].find((row) => row.dataset.case === name) : undefined;
};
