// Load data files, which are scripts that call `lungmix.deliver`. Several requests for one file share one script.
(function () {
  const pending = new Map();

  lungmix.deliver = (delivered) => {
    const request = pending.get(delivered.case);
    if (request) request.resolve(delivered);
  };

  lungmix.load = (folder, name, stamp) => {
    if (pending.has(name)) return pending.get(name).promise;
    const request = {};
    request.promise = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const end = () => {
        script.remove();
        pending.delete(name);
      };
      request.resolve = resolve;
      script.src = `${folder}/${encodeURIComponent(name)}.js?${stamp}`;
      script.onload = () => {
        end();
        // A file that delivers nothing, or another scan, is unreadable.
        reject(new Error(name));
      };
      script.onerror = script.onload;
      document.head.append(script);
    });
    pending.set(name, request);
    return request.promise;
  };
})();
