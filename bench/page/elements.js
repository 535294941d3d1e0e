/* What pages are built of: elements and figures. */

/* el("p.soft", child, "text"): text is never read as HTML. */
function el(kind, ...children) {
  const [name, ...classes] = kind.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function shape(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.append(...children);
  return element;
}

const known = (value) => value !== null && value !== undefined;
const number = (value, digits, unit = "") => (known(value) ? value.toFixed(digits) + unit : "\u2013");
const words = (name) => name.replaceAll("_", " ");
const mark = (passes) => el(`span.mark.${passes ? "pass" : "fail"}`, passes ? "\u2713 passes" : "\u2717 fails");
const within = (value, least, most) => Math.min(most, Math.max(least, value));

function styled(style, element) {
  Object.assign(element.style, style);
  return element;
}
