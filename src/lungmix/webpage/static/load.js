// Load data files, which are scripts that call `lungmix.deliver`. Several requests for one file share one script.
(function () {
  const pending = new Map();

  // Data files of changes name their folder; those of scans are in the folder `data`.
  lungmix.deliver = (delivered) => {
    const request = pending.get(`${delivered.folder || "data"}/${delivered.case}`);
    if (request) request.resolve(delivered);
  };

  // `root` leads from the page to the folder of the report.
  lungmix.load = (root, folder, name, stamp) => {
    const file = `${folder}/${name}`;
    if (pending.has(file)) return pending.get(file).promise;
    const request = {};
    request.promise = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      request.resolve = resolve;
      script.src = `${root}${folder}/${encodeURIComponent(name)}.js?${stamp}`;
      script.onload = () => {
        script.remove();
        pending.delete(file);
        // A file that delivers nothing, or another scan, is unreadable.
        reject(new Error(file));
      };
      script.onerror = script.onload;
      document.head.append(script);
    });
    pending.set(file, request);
    return request.promise;
  };
})();
