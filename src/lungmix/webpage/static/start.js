// Start the table and the viewer. A scan is loaded when the viewer scrolls into view, or by a link such as
// index.html#scan=case-001.
(function () {
  const root = lungmix.byId("view");
  const viewer = root && new lungmix.Viewer(root);
  const linkedScan = () => decodeURIComponent((location.hash.match(/^#scan=(.+)$/) || [])[1] || "");

  function open(name, slice) {
    if (!viewer) return;
    viewer.open(name, slice);
    lungmix.byId("viewer").scrollIntoView({ block: "start" });
    root.querySelector("canvas").focus({ preventScroll: true });
  }

  lungmix.table(open);
  const flagged = document.querySelector(".flagged");
  if (flagged) {
    flagged.addEventListener("click", (event) => {
      const button = event.target.closest("button.open");
      if (button) open(button.dataset.case, button.dataset.slice);
    });
  }
  if (!viewer) return;
  lungmix.viewer = viewer;
  window.addEventListener("hashchange", () => linkedScan() && open(linkedScan()));
  if (linkedScan()) {
    open(linkedScan());
  } else {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      if (!viewer.requested) viewer.open(viewer.select.value);
    }, { rootMargin: "300px" });
    observer.observe(root);
  }
})();
