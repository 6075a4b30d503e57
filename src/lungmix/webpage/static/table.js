// The table of the cohort: sort by a head, search in rows, show all columns.
lungmix.table = function (open) {
  const table = lungmix.byId("cases");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const search = lungmix.byId("search");
  const found = lungmix.byId("found");
  const more = lungmix.byId("all-columns");
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function keyOf(row, index) {
    const cell = row.cells[index];
    if ("value" in cell.dataset) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    return cell.textContent.trim() || null;
  }

  function sort(index) {
    const head = heads[index];
    const up = head.getAttribute("aria-sort") !== "ascending";
    const keyed = rows.map((row, place) => ({ row, place, key: keyOf(row, index) }));
    keyed.sort((a, b) => {
      // Rows without a value stay at the end, whichever way the others go.
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      const order = typeof a.key === "number" ? a.key - b.key : words.compare(a.key, b.key);
      return (up ? order : -order) || a.place - b.place;
    });
    body.append(...keyed.map((one) => one.row));
    for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }

  function filter() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      // What is not shown is not found.
      const shownCells = [...row.cells].filter((cell) => !cell.hidden);
      const text = shownCells.map((cell) => cell.textContent).join(" ").toLowerCase().replaceAll("−", "-");
      row.hidden = !wanted.every((word) => text.includes(word.replaceAll("−", "-")));
      shown += !row.hidden;
    }
    found.textContent = `${shown} of ${rows.length}`;
  }

  heads.forEach((head, index) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sort(index));
  });
  search.addEventListener("input", filter);
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

// Rows of the table by case, for those who want to show a value.
lungmix.rowOf = function (name) {
  const table = lungmix.byId("cases");
  return table ? [...table.tBodies[0].rows].find((row) => row.dataset.case === name) : undefined;
};
