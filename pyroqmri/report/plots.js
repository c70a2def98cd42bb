// Plots of one voxel as SVG: its measurements with the fit, and its draws in pairs. Strings become text, never markup.
const made = (tag, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const minus = text => text.replace(/-/g, "−");
const near = (x, span) => minus(x.toFixed(Math.min(8, Math.max(0, Math.ceil(1 - Math.log10(span || 1))))));
const digits = x => {
  if (!Number.isFinite(x)) return "–";
  const text = Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(3)));
  return minus(text);
};
// pieces of a symbol, each [kind, text]: in italics, below or above the line
const drawnSymbol = pieces => pieces.flatMap(([kind, text]) => {
  if (kind === "i") return [made("tspan", { "font-style": "italic" }, text)];
  const down = kind === "sub" ? 3 : -4;
  return [made("tspan", { dy: down, "font-size": 8 }, text), made("tspan", { dy: -down }, "\u200b")];
});
const writtenSymbol = pieces => pieces.map(([kind, text]) => {
  const node = document.createElement(kind === "sub" ? "sub" : kind === "sup" ? "sup" : "i");
  node.textContent = text;
  return node;
});
const words = (x, y, attributes, ...body) => made("text", { x, y, ...attributes }, ...body);
const svgOf = (width, height, label, shapes) => made("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
  "aria-label": label, "font-family": "sans-serif", style: "max-width:100%;height:auto" }, ...shapes);
const tickAt = (low, high, n = 4) => {
  const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + 1e-9 * step; t += step) found.push(Math.abs(t) < 1e-9 * step ? 0 : t);
  return found;
};

// measurements (M) along one setting, or by shell in order of what the fit expects
const fitPlot = (voxel, along) => {
  const width = 390, height = 250, left = 54, right = 8, top = 10, bottom = 42, m = along.x.length;
  const { y, fitted, low, high } = voxel;
  const shapes = [], slots = new Float64Array(m), marks = [];
  let lines;
  if (along.shells) {
    const shells = [...new Set(along.x)].sort((a, b) => a - b);
    let next = 0;
    lines = shells.map(shell => {
      const here = [...along.x.keys()].filter(i => along.x[i] === shell).sort((a, b) => fitted[b] - fitted[a]);
      here.forEach((i, k) => { slots[i] = next + k; });
      marks.push([next + (here.length - 1) / 2, String(shell)]);
      next += here.length + Math.max(1, m / 40);
      return here;
    });
  } else {
    along.x.forEach((x, i) => { slots[i] = x; });
    lines = [...new Set(along.groups)].map(g =>
      [...along.x.keys()].filter(i => along.groups[i] === g).sort((a, b) => along.x[a] - along.x[b]));
  }
  const atZero = voxel.s0 !== null;
  let from = Math.min(...slots, atZero ? 0 : Infinity), to = Math.max(...slots);
  if (!along.shells) tickAt(from, to).forEach(t => marks.push([t, digits(t)]));
  const room = 0.03 * (to - from || 1);
  from -= room; to += room;
  const values = [...y, ...low, ...high, ...(atZero ? [voxel.s0] : []), 0];
  const least = Math.min(...values), most = Math.max(...values);
  const across = v => left + (v - from) / (to - from) * (width - left - right);
  const up = v => height - bottom - (v - least) / (most - least || 1) * (height - bottom - top);
  tickAt(least, most).forEach(t => shapes.push(
    made("line", { x1: left, x2: width - right, y1: up(t), y2: up(t), class: "grid" }),
    words(left - 5, up(t) + 3, { class: "tick", "text-anchor": "end" }, digits(t))));
  marks.forEach(([v, text]) => shapes.push(words(across(v), height - bottom + 15, { class: "tick", "text-anchor": "middle" }, text)));
  for (const line of lines) {
    const path = (ends, order) => order.map(i => `${across(slots[i]).toFixed(1)},${up(ends[i]).toFixed(1)}`);
    if (line.length > 1) {
      shapes.push(made("polygon", { class: "band", points: [...path(high, line), ...path(low, [...line].reverse())].join(" ") }),
        made("polyline", { class: "fit", points: path(fitted, line).join(" ") }));
    } else {
      const [i] = line, x = across(slots[i]);
      shapes.push(made("line", { class: "bar", x1: x, x2: x, y1: up(low[i]), y2: up(high[i]) }),
        made("line", { class: "fit", x1: x - 5, x2: x + 5, y1: up(fitted[i]), y2: up(fitted[i]) }));
    }
  }
  for (let i = 0; i < m; i++) shapes.push(made("circle", { class: "measured", cx: across(slots[i]), cy: up(y[i]), r: m > 60 ? 2 : 2.8 }));
  if (atZero) shapes.push(made("circle", { class: "s0", cx: across(0), cy: up(voxel.s0), r: 3.2 }));
  shapes.push(words((left + width - right) / 2, height - 8, { class: "name", "text-anchor": "middle" },
    along.shells ? `${along.label}, directions by their fitted signal` : along.label),
  words(0, 0, { class: "name", "text-anchor": "middle", transform: `rotate(-90) translate(${-(top + height - bottom) / 2} 12)` }, "signal (a.u.)"));
  return svgOf(width, height, "measurements of the voxel, the fitted signal and its 90 % band", shapes);
};

// draws (P, S) from 0 to 255 between the ends (P, 2) of each
const pairPlot = (draws, ends, symbols, units) => {
  const n = symbols.length, cell = Math.min(140, 330 / n), left = n > 1 ? 62 : 12, inner = 6, drawn = cell - 2 * inner, shapes = [];
  const label = p => [...drawnSymbol(symbols[p]), units[p] ? ` (${units[p]})` : ""];
  const related = (a, b) => {
    const mean = v => v.reduce((s, x) => s + x, 0) / v.length, ma = mean(a), mb = mean(b);
    let ab = 0, aa = 0, bb = 0;
    a.forEach((x, i) => { ab += (x - ma) * (b[i] - mb); aa += (x - ma) ** 2; bb += (b[i] - mb) ** 2; });
    return aa * bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
  };
  const sides = (p, x0, y0, upright) => {
    const [a, b] = ends[p].map(v => near(v, ends[p][1] - ends[p][0])), middle = cell / 2;
    const first = { class: "tick" }, last = { class: "tick", "text-anchor": "end" }, name = { class: "name", "text-anchor": "middle" };
    if (!upright) return [words(x0 + inner, y0 + cell + 11, first, a), words(x0 + cell - inner, y0 + cell + (cell < 90 ? 22 : 11), last, b),
      words(x0 + middle, y0 + cell + (cell < 90 ? 36 : 26), name, ...label(p))];
    return [words(left - 3, y0 + cell - inner, last, a), words(left - 3, y0 + inner + 7, last, b),
      words(left - 46, y0 + middle, { ...name, transform: `rotate(-90 ${left - 46} ${y0 + middle})` }, ...label(p))];
  };
  const bars = (steps, x0, y0) => {
    const bins = new Array(12).fill(0), width = drawn / 12, tall = cell - 18;
    steps.forEach(s => { bins[Math.min(11, Math.floor(12 * s / 255))]++; });
    const most = Math.max(...bins);
    return bins.map((b, i) => made("rect", { class: "bars", x: x0 + inner + i * width, y: y0 + cell - 4 - tall * b / most,
      width: width - 0.6, height: tall * b / most }));
  };
  for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) {
    const x0 = left + c * cell, y0 = r * cell;
    if (c > r) {
      const text = `r = ${minus(related(draws[r], draws[c]).toFixed(2))}`;
      shapes.push(words(x0 + cell / 2, y0 + cell / 2 + 4, { class: "tick", "text-anchor": "middle" }, text));
      continue;
    }
    shapes.push(made("rect", { class: "cell", x: x0 + 2, y: y0 + 2, width: cell - 4, height: cell - 4 }));
    if (c === r) shapes.push(...bars(draws[r], x0, y0));
    else shapes.push(...draws[c].map((s, i) => made("circle", { class: "draw", cx: x0 + inner + drawn * s / 255,
      cy: y0 + cell - inner - drawn * draws[r][i] / 255, r: 1.7 })));
    if (c === 0 && r > 0) shapes.push(...sides(r, x0, y0, true));
    if (r === n - 1) shapes.push(...sides(c, x0, y0, false));
  }
  return svgOf(left + n * cell, n * cell + (cell < 90 ? 42 : 32), "draws from the posterior of the voxel, alone and in pairs", shapes);
};
