// Put the parts together. A scan is loaded when its viewer comes into sight, or is asked for by a link such as
// index.html#scan=case-001.
(function () {
  const root = lungmix.byId("view");
  const viewer = root && new lungmix.Viewer(root);
  const asked = () => decodeURIComponent((location.hash.match(/^#scan=(.+)$/) || [])[1] || "");

  function open(name) {
    if (!viewer) return;
    viewer.open(name);
    lungmix.byId("viewer").scrollIntoView({ block: "start" });
    root.querySelector("canvas").focus({ preventScroll: true });
  }

  lungmix.table(open);
  if (!viewer) return;
  lungmix.viewer = viewer;
  window.addEventListener("hashchange", () => asked() && open(asked()));
  if (asked()) {
    open(asked());
  } else {
    const sight = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      sight.disconnect();
      if (!viewer.wanted) viewer.open(viewer.select.value);
    }, { rootMargin: "300px" });
    sight.observe(root);
  }
})();
