"use strict";

// Namespace of all scripts.
const lungmix = {
  minus: (value) => String(value).replace("-", "−"),

  byId: (name) => document.getElementById(name),

  clamp: (value, low, high) => Math.min(Math.max(value, low), high),

  make(name, attributes = {}, text = "") {
    const isSvg = ["svg", "g", "rect", "path", "line", "text", "title", "desc", "clipPath", "defs"].includes(name);
    const node = isSvg
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  },
};
